//! A request that may be forwarded. Exchanges and tunnels take one, so that nothing is forwarded without an approval.

use std::sync::Arc;

use super::app_cookies::Foreign;
use super::authorize::Admission;
use super::decide::Approval;
use super::normalize::NormalRequest;
use super::websocket_credentials::Handshake;
use crate::account::{IssuedToken, UpstreamToken};

/// A request that may be forwarded, and all that its exchange needs to know. The approval and the request that it was
/// made for are private, and are never exchanged.
pub(crate) struct Forwarding {
    approval: Approval,
    request: NormalRequest,
    additions: Additions,
}

/// What a request is forwarded with, besides its own fields.
pub(crate) struct Additions {
    /// The upstream's own token for the account.
    pub(crate) token: Option<Arc<IssuedToken>>,
    /// The token of the account's provider, if the upstream gets one.
    pub(crate) provider_token: Option<Arc<UpstreamToken>>,
    /// Cookies of apps that belong to another account, or whose account is not known yet.
    pub(crate) foreign_cookies: Option<Box<Foreign>>,
    pub(crate) handshake: Option<Handshake>,
    /// The protocol besides WebSocket that the client asks to switch to and its route allows.
    pub(crate) upgrade: Option<String>,
}

impl Forwarding {
    /// Only `decide` makes an [`Approval`].
    pub(crate) fn new(approval: Approval, request: NormalRequest, additions: Additions) -> Self {
        Self { approval, request, additions }
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.approval
    }

    pub(crate) fn request(&self) -> &NormalRequest {
        &self.request
    }

    /// The request alone: it cannot be forwarded any more.
    pub(crate) fn into_request(self) -> NormalRequest {
        self.request
    }

    /// The same, with the protocol to switch to, if it is not WebSocket.
    pub(crate) fn into_request_and_upgrade(self) -> (NormalRequest, Option<String>) {
        (self.request, self.additions.upgrade)
    }

    pub(crate) fn token(&self) -> Option<&IssuedToken> {
        self.additions.token.as_deref()
    }

    pub(crate) fn provider_token(&self) -> Option<&UpstreamToken> {
        self.additions.provider_token.as_deref()
    }

    /// Adds the token of the account's provider, which the request waited for.
    pub(crate) fn add_provider_token(&mut self, token: Arc<UpstreamToken>) {
        self.additions.provider_token = Some(token);
    }

    pub(crate) fn foreign_cookies(&self) -> Option<&Foreign> {
        self.additions.foreign_cookies.as_deref()
    }

    pub(crate) fn handshake(&self) -> Option<&Handshake> {
        self.additions.handshake.as_ref()
    }

    pub(crate) fn upgrade(&self) -> Option<&str> {
        self.additions.upgrade.as_deref()
    }

    /// Removes the upgrade, and returns whether there was one.
    pub(crate) fn remove_upgrade(&mut self) -> bool {
        self.additions.upgrade.take().is_some()
    }
}
