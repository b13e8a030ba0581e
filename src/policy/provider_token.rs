//! Which requests carry a provider's token to their app.

use std::sync::Arc;

use super::authorize::Admission;
use crate::account::Session;
use crate::config::{Access, Config, ProviderToken};

/// The token that the app of an admitted request gets, and the session that it may be of. Only where each route that
/// admits the request requires a sign-in: nothing that may be public gets one. API tokens have none.
pub(crate) fn wanted<'a>(
    config: &'a Config,
    admission: &'a Admission,
) -> Option<(&'a ProviderToken, &'a Arc<Session>)> {
    let token = config.upstreams[admission.upstream()].provider_token.as_ref()?;
    let identity = admission.identity().filter(|identity| identity.grant.is_none())?;
    let is_guarded = admission.routes().all(|route| config.routes[route].access == Access::SignedIn);
    is_guarded.then_some((token, &identity.session))
}
