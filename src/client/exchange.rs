//! One request and its response.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;

use super::address::Place;
use super::connect::HyperStream;
use super::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX};
use super::response::{FetchError, Response};
use crate::web::strict_json;

/// Sends the request and reads the whole response. The caller limits the time.
pub(super) async fn run(
    (stream, place): (HyperStream, Place),
    request: http::Request<Full<Bytes>>,
    body_bytes_max: usize,
) -> Result<Response, FetchError> {
    let protocol = |error: hyper::Error| FetchError::Protocol(error.to_string());
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEAD_FIELDS_MAX);
    let (mut sender, connection) = builder.handshake(stream).await.map_err(protocol)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(protocol)?;
        read(response, body_bytes_max, place).await
    };
    // the connection only moves while it is polled, and ends with the exchange
    tokio::pin!(exchange, connection);
    let mut is_open = true;
    loop {
        tokio::select! {
            result = &mut exchange => return result,
            ended = &mut connection, if is_open => {
                is_open = false;
                // the exchange reports what became of it
                drop(ended);
            }
        }
    }
}

async fn read(response: http::Response<Incoming>, bytes_max: usize, place: Place) -> Result<Response, FetchError> {
    let (head, mut body) = response.into_parts();
    let status = head.status;
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        return Err(FetchError::Redirect(status.as_u16()));
    }
    if !is_json(&head.headers) {
        return Err(FetchError::NotJson { status: status.as_u16(), bytes: body.size_hint().exact() });
    }
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(FetchError::TooLarge(bytes_max));
    }
    let mut content = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| FetchError::Protocol(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if content.len() + data.len() > bytes_max {
            return Err(FetchError::TooLarge(bytes_max));
        }
        content.extend_from_slice(&data);
    }
    let json = strict_json::parse(&content).map_err(|error| FetchError::BadJson { status: status.as_u16(), error })?;
    let date = head.headers.get(header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
    Ok(Response { status: status.as_u16(), json, date, place })
}

/// `application/json` or a type that is JSON by its suffix (RFC 6839, 3.1), in UTF-8, not compressed.
fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    let Ok(text) = only.to_str() else { return false };
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_json_type = essence == "application/json"
        || essence.strip_prefix("application/").is_some_and(|subtype| subtype.ends_with("+json"));
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("us-ascii")
        }
        _ => true,
    });
    let is_plain = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    is_json_type && is_utf8 && is_plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_utf_8_is_all_that_is_read() {
        let judge = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            is_json(&headers)
        };
        for good in [
            "application/json",
            "application/json; charset=utf-8",
            "Application/JSON;Charset=\"UTF-8\"",
            "application/jwk-set+json",
        ] {
            assert!(judge(&[("content-type", good)]), "{good}");
        }
        for bad in ["text/html", "text/json", "application/jwt", "application/json; charset=utf-16", "", "+json"] {
            assert!(!judge(&[("content-type", bad)]), "{bad}");
        }
        assert!(!judge(&[]));
        let json = ("content-type", "application/json");
        assert!(!judge(&[json, ("content-type", "text/html")]));
        assert!(!judge(&[json, ("content-encoding", "gzip")]));
        assert!(judge(&[json, ("content-encoding", "identity")]));
    }
}
