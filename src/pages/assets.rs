//! Stylesheet, script, icon and logo. Their names change with their content, so browsers may
//! cache them forever.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, StatusCode, header};

use crate::config::Look;
use crate::web::incoming::Incoming;
use crate::web::reply::Reply;

const FILES: [(&str, &str, &str, &[u8]); 3] = [
    ("style", "css", "text/css; charset=utf-8", include_bytes!("../../login-ui/style.css")),
    ("script", "js", "text/javascript; charset=utf-8", include_bytes!("../../login-ui/script.js")),
    ("icon", "svg", "image/svg+xml", include_bytes!("../../login-ui/icon.svg")),
];

struct Asset {
    path: String,
    kind: &'static str,
    plain: Bytes,
    /// Present if it is smaller.
    gzip: Option<Bytes>,
}

/// The files, ready to be sent.
pub(super) struct Assets(Vec<Asset>);

/// Their addresses, for templates.
#[derive(Clone)]
pub(super) struct Frame {
    pub(super) style: String,
    pub(super) script: String,
    pub(super) icon: String,
    /// Empty if there is none.
    pub(super) logo: String,
}

impl Assets {
    pub(super) fn new(prefix: &str, look: &Look) -> Self {
        let asset = |name: &str, ending: &str, kind: &'static str, plain: Bytes| {
            let digest = ring::digest::digest(&ring::digest::SHA256, &plain);
            let hash = data_encoding::HEXLOWER.encode(&digest.as_ref()[..8]);
            let gzip = Some(gzip(&plain)).filter(|gzip| gzip.len() < plain.len());
            Asset { path: format!("{prefix}/assets/{name}-{hash}.{ending}"), kind, plain, gzip }
        };
        let shipped = FILES.into_iter().map(|(name, ending, kind, content)| {
            let own = look.own.iter().find(|(own, _)| *own == format!("{name}.{ending}"));
            let content = own.map_or(Bytes::from_static(content), |(_, own)| own.clone());
            asset(name, ending, kind, content)
        });
        let logo = look.logo.iter().map(|(ending, content)| {
            let kind = match *ending {
                "png" => "image/png",
                "webp" => "image/webp",
                _ => "image/svg+xml",
            };
            asset("logo", ending, kind, content.clone())
        });
        Self(shipped.chain(logo).collect())
    }

    pub(super) fn frame(&self) -> Frame {
        let path = |number: usize| self.0.get(number).map(|asset| asset.path.clone()).unwrap_or_default();
        Frame { style: path(0), script: path(1), icon: path(2), logo: path(3) }
    }

    pub(super) fn answer(&self, incoming: &Incoming<'_>) -> Option<Reply> {
        let asset = self.0.iter().find(|asset| asset.path == incoming.path.as_str())?;
        let mut reply = Reply::empty(StatusCode::OK);
        reply.headers.clear();
        let reply = reply
            .with(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind))
            .with(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"))
            .with(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
            .with(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        // an SVG can contain scripts, which would run with our origin if it is opened by itself
        let reply = reply.with(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"),
        );
        Some(match asset.gzip.as_ref().filter(|_| accepts_gzip(incoming)) {
            Some(gzip) => {
                reply.with(header::CONTENT_ENCODING, HeaderValue::from_static("gzip")).with_body(gzip.clone())
            }
            None => reply.with_body(asset.plain.clone()),
        })
    }
}

/// Compresses to memory; this cannot fail.
pub(super) fn gzip(content: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(content.len() / 2), Compression::best());
    let written = encoder.write_all(content).and_then(|()| encoder.finish());
    Bytes::from(written.unwrap_or_default())
}

pub(super) fn accepts_gzip(incoming: &Incoming<'_>) -> bool {
    incoming.headers.get_all(header::ACCEPT_ENCODING).iter().any(|line| {
        line.to_str().is_ok_and(|line| {
            line.split(',').any(|item| {
                let mut parts = item.split(';').map(str::trim);
                let named = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
                named && !parts.any(|q| q.starts_with("q=0") && q.trim_start_matches(['q', '=', '0', '.']).is_empty())
            })
        })
    })
}
