//! The second way of a request: through pingora's proxy. Its phases, each a few calls into this room;
//! a phase that finds no admission fails closed.

use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::cors::CorsAnswer;
use super::front::response::check_framing;
use super::guard::Guard;
use super::head::Peer;
use super::tries::{count_interim, no_admission};
use super::{Current, Gateway, RequestState, Step, answer, record};

/// One request, and the gateway that it began with.
pub struct Exchange {
    gateway: Gateway,
    state: RequestState,
}

#[async_trait]
impl ProxyHttp for Current {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        let gateway = self.gateway();
        Exchange { state: gateway.new_state(), gateway }
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        let Exchange { gateway, state } = exchange;
        let idle = gateway.config.limits.idle;
        // an HTTP/1.0 client, or one that said `close`, has none to be bounded
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(idle.as_secs().max(1)));
        }
        session.set_read_timeout(Some(idle));
        session.set_write_timeout(Some(idle));
        state.guard = Guard::of(session).cloned();
        let head_bytes = session.to_h1_raw().len();
        let reply = match gateway.open(session.req_header_mut(), head_bytes, state) {
            Step::Forward => return Ok(false),
            Step::Reply(reply) => reply,
            Step::Page(page) => {
                let body = answer::body_of(page, session, gateway.config.limits.form_bytes).await;
                gateway.page(page, session.req_header(), body, state).await
            }
        };
        answer::write(&gateway.config, session, state.cors.dress(reply), &state.request_id).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        let Exchange { gateway, state } = exchange;
        let target = gateway.next_target(state)?;
        if session.is_body_empty()
            && let (Some(guard), Some(admission)) = (&state.guard, &state.admission)
        {
            guard.expect_answer(gateway.config.routes[admission.route()].timeout);
        }
        Ok(Box::new(target.peer()))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        upstream_request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let Exchange { gateway, state } = exchange;
        gateway.changes(upstream_request, state)?.apply(upstream_request)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let Exchange { gateway, state } = exchange;
        let Some(admission) = &state.admission else { return no_admission() };
        let route = &gateway.config.routes[admission.route()];
        state.body_bytes += body.as_ref().map_or(0, |part| part.len() as u64);
        if route.body_max.is_some_and(|max| state.body_bytes > max) {
            return Error::e_explain(ErrorType::HTTPStatus(413), "body larger than body_max");
        }
        if end_of_stream
            && session.response_written().is_none()
            && let Some(guard) = &state.guard
        {
            guard.expect_answer(route.timeout);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let Exchange { gateway, state } = exchange;
        if response.status.is_informational() {
            count_interim(&mut state.interims)?;
        } else {
            check_framing(response)?;
        }
        gateway.answered(session.req_header(), &*response, state)?.apply(response);
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        exchange: &mut Exchange,
        mut e: Box<Error>,
    ) -> Box<Error> {
        let Exchange { gateway, state } = exchange;
        e.set_retry(gateway.may_try_another(state));
        e
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut e: Box<Error>,
        exchange: &mut Exchange,
        client_reused: bool,
    ) -> Box<Error> {
        let Exchange { state, .. } = exchange;
        let broken = session.response_written().is_none() && e.esource() == &ErrorSource::Upstream;
        let bodiless = session.is_body_empty();
        e.set_retry(broken && Gateway::may_repeat(state, session.req_header(), bodiless, client_reused));
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, exchange: &mut Exchange) -> FailToProxy {
        let Exchange { gateway, state } = exchange;
        session.set_keepalive(None);
        let last = session.response_written().map(|head| head.status).filter(|status| !status.is_informational());
        let mut written = last.map_or(0, |status| status.as_u16());
        let reply = gateway.failed(e, session.req_header(), state);
        if let (Some(reply), 0) = (reply, written) {
            let code = reply.status.as_u16();
            let answered = answer::write(&gateway.config, session, reply, &state.request_id).await;
            written = if answered.is_ok() { code } else { 0 };
        }
        FailToProxy { error_code: written, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _e: Option<&Error>, exchange: &mut Exchange) {
        let Exchange { gateway, state } = exchange;
        let head = session.req_header();
        let counts = record::Counts {
            status: session.response_written().map_or(0, |head| head.status.as_u16()),
            bytes_in: session.body_bytes_read(),
            bytes_out: session.body_bytes_sent(),
        };
        record::record(gateway, head, head.raw_path(), state, &counts);
    }

    fn suppress_error_log(&self, _: &Session, _: &Exchange, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Exchange, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    fn request_summary(&self, _session: &Session, exchange: &Exchange) -> String {
        exchange.state.request_id.clone()
    }
}

impl Gateway {
    /// A request that has just begun.
    pub(super) fn new_state(&self) -> RequestState {
        RequestState {
            began: Instant::now(),
            request_id: self.fresh_id(),
            outcome: "error",
            why: None,
            route: None,
            page: None,
            peer: Peer::default(),
            known: None,
            identity: None,
            by_cookie: false,
            admission: None,
            guard: None,
            live: None,
            tried: Vec::new(),
            retried: false,
            interims: 0,
            body_bytes: 0,
            renewed: None,
            cors: CorsAnswer::default(),
            handshake: None,
            token: None,
        }
    }
}
