//! The Content-Security-Policy of the gateway's own pages.

use http::HeaderValue;

use crate::config::Config;

/// One policy for all pages. `form-action` also lists the origins that sign-in may redirect to: Chromium checks the
/// redirects of a form against it.
pub(super) fn policy(config: &Config) -> HeaderValue {
    let mut places = vec!["'self'".to_owned(), config.server.public_url.to_string()];
    if let Some(domain) = &config.session.domain {
        // cookies ignore ports, and so do return URLs
        places.push(format!("https://{domain}:*"));
        places.push(format!("https://*.{domain}:*"));
    }
    places.extend(config.pages.callback_origins.iter().map(ToString::to_string));
    let policy = format!(
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action {}; base-uri 'none'; frame-ancestors 'none'",
        places.join(" ")
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"))
}
