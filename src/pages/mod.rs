//! Being laid out.
use bytes::Bytes;
use http::{Method, StatusCode};
use crate::account::{Accounts, Caller, Identity};
use crate::config::Config;
use crate::web::incoming::Incoming;
use crate::web::reply::Reply;
pub mod guard { use crate::web::{incoming::Incoming, origin::Origin}; pub fn is_cross_origin(_: &Incoming<'_>, _: &[Origin]) -> bool { false } }
pub mod whoami { pub async fn serve<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send>(_: S) {} }
#[derive(Debug, Clone, Copy)] pub struct Page;
impl Page { pub fn name(self) -> &'static str { "x" } pub fn takes_body(self, _: &Method) -> bool { false } }
pub struct Pages;
pub struct Call<'a> { pub incoming: &'a Incoming<'a>, pub identity: Option<Identity>, pub body: Bytes, pub caller: Caller }
impl Pages {
 pub fn new(_: &Config, _: Accounts) -> Pages { Pages }
 pub fn find(&self, _: &str) -> Option<Page> { None }
 pub async fn answer(&self, _: Page, _: Call<'_>) -> Reply { Reply::empty(StatusCode::OK) }
 pub fn login_redirect(&self, _: &Incoming<'_>) -> Reply { Reply::empty(StatusCode::OK) }
 pub fn login_url(&self, _: &Incoming<'_>) -> String { String::new() }
 pub fn error_page(&self, _: StatusCode, _: &str, _: Option<&Incoming<'_>>) -> Reply { Reply::empty(StatusCode::OK) }
}
