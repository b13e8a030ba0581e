//! A WebSocket after its 101: bytes pass in both directions with backpressure, frames are tracked so that a Close can be sent
//! between two of them. An idle socket holds no buffer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::AsyncWrite as _;
use tokio::time::Instant;

use super::client_connection::ClientConnection;
use crate::metrics::{RouteMetrics, SocketEnd};
use crate::policy::forwarding::Forwarding;
use crate::policy::normalize::NormalRequest;
use crate::policy::reasons::Reason;
use crate::proxy::access_log::{self, Counts};
use crate::proxy::connection_handle::ConnectionHandle;
use crate::proxy::connection_limits::ConnectionPermit;
use crate::proxy::gateway::Gateway;
use crate::proxy::request_state::RequestState;
use crate::wire::deadline::Deadline;
use crate::wire::stream::Stream;
use crate::wire::websocket_frames::{Closing, FrameTracker};

/// Time for the end of a frame that has begun.
const FRAME_END_TIME: Duration = Duration::from_millis(500);
/// Time for the client's Close after ours: a client that sees the end of the connection before takes that for a failure
/// (RFC 6455, 7.1.1).
const CLOSE_REPLY_TIME: Duration = Duration::from_secs(1);

/// One direction.
#[derive(Default)]
struct Direction {
    frames: FrameTracker,
    /// Read and not written yet: no more is read before it is written.
    pending: BytesMut,
    bytes: usize,
    ended: bool,
    shut: bool,
    /// Our Close is in `pending` or sent: nothing of the sender's follows it.
    close_sent: bool,
}

/// The gateway's Close, on its way.
struct CloseHandshake {
    frame: Vec<u8>,
    mask: Vec<u8>,
    by: Instant,
    /// Sent to the client.
    is_sent: bool,
}

/// A socket that was admitted, with what is needed to end and to log it. It is a task of its own, so that the memory of its
/// request is freed.
pub(super) struct Tunnel {
    stream: Stream,
    server: Stream,
    up: Direction,
    down: Direction,
    deadline: Deadline,
    handle: Arc<ConnectionHandle>,
    gateway: Gateway,
    /// Without its fields, and the buffer that they were in.
    request: NormalRequest,
    /// The protocol, where it is not WebSocket.
    upgrade: Option<String>,
    state: Box<RequestState>,
    counts: Counts,
    series: Arc<RouteMetrics>,
}

impl Tunnel {
    /// `first` is what the server sent after its 101.
    pub(super) fn new(
        gateway: Gateway,
        conn: ClientConnection,
        (server, first): (Stream, &[u8]),
        forwarding: Forwarding,
        state: RequestState,
        counts: Counts,
    ) -> Self {
        let direction = |bytes: &[u8]| {
            let mut direction = Direction { pending: BytesMut::from(bytes), ..Direction::default() };
            direction.bytes = direction.frames.feed(bytes);
            direction
        };
        let ClientConnection { stream, buffer, deadline, handle, .. } = conn;
        let (up, down) = (direction(&buffer), direction(first));
        let (request, upgrade) = forwarding.into_request_and_upgrade();
        let request = request.without_fields();
        let series = gateway.route_metrics.shared(state.route);
        series.socket_opened();
        Self {
            series,
            stream,
            server,
            up,
            down,
            deadline,
            handle,
            gateway,
            request,
            upgrade,
            state: Box::new(state),
            counts,
        }
    }

    /// Forwards frames until one side or the session ends, and writes the access line.
    pub(super) async fn run(mut self: Box<Self>, _counted: ConnectionPermit) {
        let idle = self.gateway.config.limits.idle;
        let mut closing: Option<CloseHandshake> = None;
        let mut active = Instant::now();
        poll_fn(|cx| {
            self.handle.register(cx.waker());
            if closing.is_none() {
                closing = self.handle.close_reason().map(begin);
            }
            // only WebSockets have a Close
            if closing.is_some() && self.upgrade.is_some() {
                return Poll::Ready(());
            }
            // before the bytes: two sides that are always ready use up the task's budget
            let by = closing.as_ref().map_or(active + idle, |closing| closing.by);
            if self.deadline.poll(by, cx).is_ready() {
                if closing.is_some() {
                    return Poll::Ready(());
                }
                self.handle.close(Closing::Idle);
                if self.upgrade.is_some() {
                    return Poll::Ready(());
                }
                closing = self.handle.close_reason().map(begin);
            }
            let (to_server, to_client) = closing.as_ref().map(|closing| (&*closing.mask, &*closing.frame)).unzip();
            let up = self.up.pump(&mut self.stream, &mut self.server, to_server, true, cx);
            let ends = closing.is_none() || self.up.ended;
            let down = self.down.pump(&mut self.server, &mut self.stream, to_client, ends, cx);
            if up || down {
                active = Instant::now();
            }
            if let Some(closing) = closing.as_mut().filter(|closing| !closing.is_sent && self.down.close_sent) {
                (closing.is_sent, closing.by) = (true, Instant::now() + CLOSE_REPLY_TIME);
            }
            if self.up.is_over() && self.down.is_over() {
                return Poll::Ready(());
            }
            // the timer is set for the new state
            if let Some(closing) = &closing
                && self.deadline.poll(closing.by, cx).is_ready()
            {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
        self.counts.bytes_in += self.up.bytes;
        self.counts.bytes_out += self.down.bytes;
        let why = self.handle.close_reason();
        if let Some(why) = why {
            self.state.reason = Some(Reason::Closed(why));
        }
        let end = why.map_or(SocketEnd::Peer, end_of);
        self.series.socket_closed();
        self.gateway.metrics.socket_closed(end);
        access_log::record(&self.gateway, self.request.parsed(), Some(self.request.facts()), &self.state, &self.counts);
    }
}

/// The end in the metrics.
fn end_of(why: Closing) -> SocketEnd {
    match why {
        Closing::GoingAway => SocketEnd::Draining,
        Closing::Idle => SocketEnd::Idle,
        Closing::Expired => SocketEnd::Expired,
        Closing::Revoked => SocketEnd::Revoked,
        Closing::Unavailable => SocketEnd::Unavailable,
    }
}

fn begin(why: Closing) -> CloseHandshake {
    CloseHandshake {
        frame: why.server_frame(),
        mask: why.client_frame(),
        by: Instant::now() + FRAME_END_TIME,
        is_sent: false,
    }
}

impl Direction {
    /// Forwards bytes as long as both sides are ready; returns whether there were any. With `close`, the current frame is
    /// completed, then that one is sent and nothing more. At the sender's end the other side is shut down if `ends`.
    fn pump(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        close: Option<&[u8]>,
        ends: bool,
        cx: &mut Context<'_>,
    ) -> bool {
        let mut moved = false;
        loop {
            if let Some(frame) = close {
                self.send_close(frame);
            }
            match self.flush(to, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.end();
                    return moved;
                }
                Poll::Pending => return moved,
            }
            if self.ended {
                if ends && !self.shut && Pin::new(&mut *to).poll_shutdown(cx).is_ready() {
                    self.shut = true;
                }
                return moved;
            }
            match self.fill(from, close.is_some(), cx) {
                Poll::Ready(0) => self.ended = true,
                Poll::Ready(_) => moved = true,
                Poll::Pending => return moved,
            }
        }
    }

    /// Reads a piece; 0 at the end.
    fn fill(&mut self, from: &mut Stream, closing: bool, cx: &mut Context<'_>) -> Poll<usize> {
        let read = from.poll_take(cx, |bytes| {
            if self.close_sent {
                // the answer to our Close, or what was sent before it arrived
                self.frames.feed(bytes);
                return if self.frames.closed() { 0 } else { bytes.len() };
            }
            let passed = if closing { self.frames.feed_frame(bytes) } else { self.frames.feed(bytes) };
            self.bytes += passed;
            self.pending.extend_from_slice(&bytes[..passed]);
            bytes.len()
        });
        read.map(|read| read.unwrap_or(0))
    }

    fn flush(&mut self, to: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, &self.pending) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.pending.advance(written),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.pending.capacity() > 0 {
            self.pending = BytesMut::new();
        }
        Pin::new(to).poll_flush(cx)
    }

    /// Sends our Close after the last frame, once, if one may still be sent.
    fn send_close(&mut self, frame: &[u8]) {
        if self.close_sent || self.ended || !self.frames.at_border() {
            return;
        }
        if !self.frames.closed() {
            self.pending.extend_from_slice(frame);
        }
        self.close_sent = true;
    }

    fn end(&mut self) {
        (self.ended, self.shut) = (true, true);
        self.pending.clear();
    }

    fn is_over(&self) -> bool {
        self.ended && self.shut
    }
}
