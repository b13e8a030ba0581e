//! pingora's phases, each a few calls into this room. A phase that finds no admission fails closed.

use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::cors::CorsAnswer;
use super::forward::{self, Told};
use super::handshake::Handshake;
use super::head::{self, Peer};
use super::{Gateway, RequestState, Step, answer, record, refuse, respond};

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = RequestState;

    fn new_ctx(&self) -> RequestState {
        RequestState {
            began: Instant::now(),
            request_id: self.fresh_id(),
            outcome: "error",
            why: None,
            route: None,
            page: None,
            peer: Peer { address: None, trusted: false },
            known: None,
            identity: None,
            admission: None,
            guard: None,
            live: None,
            tried: Vec::new(),
            retried: false,
            body_bytes: 0,
            renewed: None,
            cors: CorsAnswer::default(),
            handshake: None,
            token: None,
        }
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, state: &mut RequestState) -> Result<bool> {
        let idle = self.config.limits.idle;
        // an HTTP/1.0 client, or one that said `close`, has none to be bounded
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(idle.as_secs().max(1)));
        }
        session.set_read_timeout(Some(idle));
        session.set_write_timeout(Some(idle));
        let reply = match self.open(session, state) {
            Step::Forward => return Ok(false),
            Step::Reply(reply) => reply,
            Step::Page(page) => self.page(page, session, state).await,
        };
        answer::write(session, state.cors.dress(reply), &state.request_id).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, state: &mut RequestState) -> Result<Box<HttpPeer>> {
        let Some(admission) = &state.admission else {
            return Error::e_explain(ErrorType::HTTPStatus(500), "no admission");
        };
        let targets = &self.targets[admission.upstream()];
        let Some(target) = targets.next(self.clock.now_millis(), &state.tried) else {
            return Error::e_explain(ErrorType::HTTPStatus(502), "no server left to try");
        };
        let is_websocket = state.known.as_ref().is_some_and(|known| known.is_websocket);
        let peer = target.peer(is_websocket);
        state.tried.push(target);
        if session.is_body_empty()
            && let Some(guard) = &state.guard
        {
            guard.expect_answer(self.config.routes[admission.route()].timeout);
        }
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        upstream_request: &mut RequestHeader,
        state: &mut RequestState,
    ) -> Result<()> {
        let (Some(admission), Some(known), Some(target)) = (&state.admission, &state.known, state.tried.last()) else {
            return Error::e_explain(ErrorType::HTTPStatus(500), "no admission");
        };
        let route = &self.config.routes[admission.route()];
        let handshake = state.handshake.as_ref();
        if let Some(target) = handshake.and_then(Handshake::target) {
            upstream_request.set_raw_path(target)?;
        }
        let raw = upstream_request.raw_path().to_vec();
        let cut = respond::cut_prefix(&route.strip_prefix, &raw);
        let told = Told {
            upstream: &self.config.upstreams[admission.upstream()],
            user: admission.identity().map(|identity| &*identity.user),
            token: state.token.as_deref(),
            handshake,
            peer: state.peer.address,
            trusted: state.peer.trusted,
            scheme: known.scheme.as_str(),
            host: &known.host.to_string(),
            request_id: &state.request_id,
            via: &self.via,
            cut: cut.as_ref().map(|rest| (route.strip_prefix.as_str(), rest.as_slice())),
            host_override: self.targets[admission.upstream()].host_override(target),
        };
        forward::rewrite(upstream_request, &self.stripper, &told)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        state: &mut RequestState,
    ) -> Result<()> {
        if session.was_upgraded() {
            return Ok(());
        }
        let Some(admission) = &state.admission else {
            return Error::e_explain(ErrorType::HTTPStatus(500), "no admission");
        };
        let route = &self.config.routes[admission.route()];
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
        _session: &mut Session,
        response: &mut ResponseHeader,
        state: &mut RequestState,
    ) -> Result<()> {
        let Some(guard) = &state.guard else { return Ok(()) };
        guard.answer_began();
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            if state.live.is_none() {
                let why = "101 to a request that asked for none";
                return Err(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up());
            }
            guard.upgraded();
            if let Some(handshake) = &state.handshake {
                handshake.choose(response)?;
            }
        }
        if response.status.is_informational() {
            return Ok(());
        }
        // a socket that was not granted is no live connection
        state.live = None;
        respond::dress(response, &self.stripper, state.renewed.take(), &state.cors);
        if let (Some(admission), true) = (&state.admission, respond::is_event_stream(response))
            && let Some(identity) = admission.identity()
        {
            state.live = Some(self.live.stream(guard, identity.session.clone(), admission.route()));
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        state: &mut RequestState,
        mut e: Box<Error>,
    ) -> Box<Error> {
        // nothing was sent yet: the next server may take any request, a POST too
        if let (Some(target), Some(admission)) = (state.tried.last(), &state.admission) {
            let now = self.clock.now_millis();
            target.mark_dead(now);
            let others = self.targets[admission.upstream()].next(now, &state.tried).is_some();
            e.set_retry(others && state.guard.as_ref().is_none_or(|guard| !guard.is_overdue()));
        }
        e
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut e: Box<Error>,
        state: &mut RequestState,
        client_reused: bool,
    ) -> Box<Error> {
        // once, where doing it twice changes nothing, and only if a kept-alive connection was just being closed
        let repeatable = respond::is_repeatable(&session.req_header().method) && session.is_body_empty();
        let broken = client_reused && session.response_written().is_none() && !state.retried;
        if repeatable && broken && e.esource() == &ErrorSource::Upstream {
            state.retried = true;
            state.tried.pop();
            e.set_retry(true);
        } else {
            e.set_retry(false);
        }
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, state: &mut RequestState) -> FailToProxy {
        let overdue = state.guard.as_ref().is_some_and(|guard| guard.is_overdue());
        let code = respond::failure(e, overdue);
        session.set_keepalive(None);
        respond::log_failure(self, state, e, code);
        let mut written = session.response_written().map_or(0, |head| head.status.as_u16());
        if let (Some(code), 0) = (code, written) {
            let head = session.req_header();
            let incoming = state.known.as_ref().and_then(|known| head::incoming(head, head.raw_path(), known).ok());
            let reply = match &incoming {
                Some(incoming) => refuse::status(&self.pages, code, incoming, &state.request_id),
                None => refuse::unread(code, &state.request_id),
            };
            let answered = answer::write(session, state.cors.dress(reply.closing()), &state.request_id).await;
            written = if answered.is_ok() { code.as_u16() } else { 0 };
        }
        FailToProxy { error_code: written, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _e: Option<&Error>, state: &mut RequestState) {
        if let Some(why) = state.guard.as_ref().and_then(|guard| guard.closed_for()) {
            state.why = Some(why.reason());
        }
        let head = session.req_header();
        let counts = record::Counts {
            status: session.response_written().map_or(0, |head| head.status.as_u16()),
            bytes_in: session.body_bytes_read(),
            bytes_out: session.body_bytes_sent(),
        };
        record::record(self, head, head.raw_path(), state, &counts);
        state.live = None;
        if let Some(guard) = &state.guard {
            guard.request_done();
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &RequestState, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &RequestState, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    fn request_summary(&self, _session: &Session, state: &RequestState) -> String {
        state.request_id.clone()
    }
}
