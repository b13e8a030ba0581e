//! The routes in order, indexed by host and path segments, so that the first match is found without scanning. Built
//! once, with the configuration.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;

use ahash::RandomState;
use http::Method;

use super::{PathPattern, Route, Segment};
use crate::web::host::{Host, HostPattern};

/// `[[route]]`, in order; the first match wins.
#[derive(Clone, Default)]
pub struct Routes {
    list: Vec<Route>,
    hosts: Hosts,
    paths: Paths,
}

impl Deref for Routes {
    type Target = [Route];

    fn deref(&self) -> &[Route] {
        &self.list
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.fmt(f)
    }
}

impl FromIterator<Route> for Routes {
    fn from_iter<I: IntoIterator<Item = Route>>(list: I) -> Self {
        let mut routes = Self::default();
        list.into_iter().for_each(|route| routes.push(route));
        routes
    }
}

impl Routes {
    /// The first route that matches this host, path (with escapes decoded) and method.
    pub fn find(&self, host: &Host, path: &[u8], method: &Method) -> Option<usize> {
        let texts = path.strip_prefix(b"/")?.split(|&b| b == b'/').map(Step::Text);
        self.paths.first(self.hosts.of(host), &texts, true, |at| self.list[at].takes_method(method))
    }

    /// Whether any route names this host.
    pub fn know_host(&self, host: &Host) -> bool {
        self.hosts.of(host).next().is_some()
    }

    /// The first route that matches every request that `later` matches. May return false negatives, never false
    /// positives.
    pub(super) fn covering(&self, later: &Route) -> Option<usize> {
        let steps = later.path.segments.iter().map(|segment| match segment {
            Segment::Fixed(text) => Step::Text(text.as_bytes()),
            Segment::Glob(parts) => Step::Pattern(parts, segment),
        });
        let covers = |at: usize| covers_methods(&self.list[at], later);
        let closed = !later.path.open_end;
        match &later.host {
            HostPattern::Any => self.paths.first(self.hosts.any.into_iter(), &steps, closed, covers),
            HostPattern::Exact(host) => self.paths.first(self.hosts.of(host), &steps, closed, covers),
            HostPattern::Below(domain) => self.paths.first(self.hosts.below(domain), &steps, closed, covers),
        }
    }

    /// Appends a route.
    pub(super) fn push(&mut self, route: Route) {
        let root = match &route.host {
            HostPattern::Any => self.hosts.any.get_or_insert_with(|| self.paths.node()),
            HostPattern::Exact(host) if host.port().is_some() => {
                self.hosts.with_port.entry(host.clone()).or_insert_with(|| self.paths.node())
            }
            HostPattern::Exact(host) => {
                self.hosts.named.entry(host.name().to_owned()).or_insert_with(|| self.paths.node())
            }
            HostPattern::Below(domain) => self.hosts.below.entry(domain.clone()).or_insert_with(|| self.paths.node()),
        };
        self.paths.insert(*root, &route.path, self.list.len());
        self.list.push(route);
    }
}

fn covers_methods(earlier: &Route, later: &Route) -> bool {
    earlier.methods.is_empty()
        || (!later.methods.is_empty() && later.methods.iter().all(|method| earlier.takes_method(method)))
}

/// Host patterns -> roots of their path trees.
#[derive(Clone, Default)]
struct Hosts {
    any: Option<usize>,
    named: HashMap<String, usize, RandomState>,
    with_port: HashMap<Host, usize, RandomState>,
    below: HashMap<String, usize, RandomState>,
}

impl Hosts {
    /// All patterns that match this host.
    fn of(&self, host: &Host) -> impl Iterator<Item = usize> {
        let exact = [self.named.get(host.name()), self.with_port.get(host)];
        self.any.into_iter().chain(exact.into_iter().flatten().copied()).chain(self.above(host.name()))
    }

    /// All patterns that match every host below this domain.
    fn below(&self, domain: &str) -> impl Iterator<Item = usize> {
        self.any.into_iter().chain(self.below.get(domain).copied()).chain(self.above(domain))
    }

    /// `*.` patterns with a parent domain of this name.
    fn above(&self, name: &str) -> impl Iterator<Item = usize> {
        let name = if self.below.is_empty() { "" } else { name };
        name.match_indices('.').filter_map(|(at, _)| self.below.get(&name[at + 1..]).copied())
    }
}

/// One segment of the path or pattern that is looked up.
#[derive(Clone, Copy)]
enum Step<'s> {
    Text(&'s [u8]),
    /// Every text that this pattern matches; with its parts.
    Pattern(&'s [String], &'s Segment),
}

/// Path patterns as trees of segments, one per host pattern.
#[derive(Clone, Default)]
struct Paths {
    nodes: Vec<Node>,
    hashes: RandomState,
}

#[derive(Clone, Default)]
struct Node {
    /// The lowest route index in this subtree: the search skips it when a lower one is known.
    first: usize,
    /// Routes with a pattern that ends here, in order.
    ends: Vec<usize>,
    /// Routes with a pattern that ends here in `/**`, in order.
    open_ends: Vec<usize>,
    fixed: HashMap<Box<[u8]>, usize, RandomState>,
    /// Segments with stars, keyed by the hash of the text before the first star and after the last one.
    globs: HashMap<u64, Vec<(Segment, usize)>, RandomState>,
    /// Lengths of these two texts, each pair once.
    shapes: Vec<(usize, usize)>,
}

impl Paths {
    fn node(&mut self) -> usize {
        self.nodes.push(Node { first: usize::MAX, ..Node::default() });
        self.nodes.len() - 1
    }

    fn insert(&mut self, root: usize, path: &PathPattern, route: usize) {
        let mut at = root;
        self.nodes[at].first = self.nodes[at].first.min(route);
        for segment in &path.segments {
            at = self.child(at, segment);
            self.nodes[at].first = self.nodes[at].first.min(route);
        }
        let node = &mut self.nodes[at];
        if path.open_end { node.open_ends.push(route) } else { node.ends.push(route) }
    }

    fn child(&mut self, at: usize, segment: &Segment) -> usize {
        let fresh = self.nodes.len();
        let node = &mut self.nodes[at];
        let child = match segment {
            Segment::Fixed(text) => *node.fixed.entry(text.as_bytes().into()).or_insert(fresh),
            Segment::Glob(parts) => {
                let (front, back) = edges(parts);
                if !node.shapes.contains(&(front.len(), back.len())) {
                    node.shapes.push((front.len(), back.len()));
                }
                let alike = node.globs.entry(self.hashes.hash_one((front, back))).or_default();
                let known = alike.iter().find(|(own, _)| own == segment).map(|(_, child)| *child);
                known.unwrap_or_else(|| {
                    alike.push((segment.clone(), fresh));
                    fresh
                })
            }
        };
        if child == fresh { self.node() } else { child }
    }

    /// The first route below these roots with a pattern that matches all steps. `closed`: the path ends at the last
    /// step; otherwise it may continue in any way.
    fn first<'s>(
        &self,
        roots: impl Iterator<Item = usize>,
        steps: &(impl Iterator<Item = Step<'s>> + Clone),
        closed: bool,
        takes: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut best = usize::MAX;
        let mut waiting = Vec::new();
        for root in roots {
            let mut next = Some((root, steps.clone()));
            while let Some((at, mut steps)) = next.take().or_else(|| waiting.pop()) {
                let node = &self.nodes[at];
                let step = steps.next();
                let ends = if step.is_none() && closed { &node.ends[..] } else { &[] };
                for routes in [&node.open_ends[..], ends] {
                    let better = routes.iter().take_while(|&&route| route < best).find(|&&route| takes(route));
                    best = better.copied().unwrap_or(best);
                }
                let Some(step) = step else { continue };
                self.children(node, step, |child| {
                    if self.nodes[child].first >= best {
                        return;
                    }
                    match next {
                        None => next = Some((child, steps.clone())),
                        Some(_) => waiting.push((child, steps.clone())),
                    }
                });
            }
        }
        (best < usize::MAX).then_some(best)
    }

    /// Calls `each` for every child that matches this step.
    fn children(&self, node: &Node, step: Step<'_>, mut each: impl FnMut(usize)) {
        let alike = |hash: u64| node.globs.get(&hash).into_iter().flatten();
        match step {
            Step::Text(text) => {
                node.fixed.get(text).into_iter().for_each(|child| each(*child));
                for &(front, back) in node.shapes.iter().filter(|(front, back)| front + back <= text.len()) {
                    let hash = self.hashes.hash_one((&text[..front], &text[text.len() - back..]));
                    alike(hash).filter(|(own, _)| own.matches(text)).for_each(|(_, child)| each(*child));
                }
            }
            Step::Pattern(parts, pattern) => {
                let lone_star: (&[u8], &[u8]) = (b"", b"");
                for edges in [lone_star, edges(parts)] {
                    let hash = self.hashes.hash_one(edges);
                    alike(hash).filter(|(own, _)| own.covers(pattern)).for_each(|(_, child)| each(*child));
                }
            }
        }
    }
}

/// The text before the first star and after the last one.
fn edges(parts: &[String]) -> (&[u8], &[u8]) {
    (parts.first().map_or(b"", |part| part.as_bytes()), parts.last().map_or(b"", |part| part.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{Access, Cache, Cors, Paths, Refuse, WebSocketToken};
    use crate::web::path::NormalPath;

    fn route(host: &str, path: &str, methods: &[&str]) -> Route {
        Route {
            line: 1,
            host: HostPattern::parse(host).unwrap(),
            path: PathPattern::parse(path).unwrap(),
            methods: methods.iter().map(|name| name.parse().unwrap()).collect(),
            upstream: None,
            paths: Paths::AllReadings,
            access: Access::Deny,
            groups: Vec::new(),
            refuse: Refuse::Auto,
            strip_prefix: String::new(),
            timeout: Duration::from_secs(1),
            body_max: None,
            danger_cross_origin: false,
            websocket_origins: Vec::new(),
            websocket_token: WebSocketToken::default(),
            upgrade: Vec::new(),
            cors: Cors::App,
            drops_cookies: false,
            cache: Cache::App,
        }
    }

    /// Reference implementation of "first match wins".
    fn scanned(routes: &[Route], host: &Host, path: &[u8], method: &Method) -> Option<usize> {
        routes.iter().position(|route| route.miss(host, path, method).is_none())
    }

    /// Reference implementation of `covering`, pair by pair.
    fn covers(earlier: &Route, later: &Route) -> bool {
        let host = match (&earlier.host, &later.host) {
            (HostPattern::Any, _) => true,
            (HostPattern::Below(own), HostPattern::Below(other)) => {
                other == own || other.strip_suffix(own.as_str()).is_some_and(|front| front.ends_with('.'))
            }
            (pattern, HostPattern::Exact(host)) => pattern.matches(host),
            _ => false,
        };
        host && covers_methods(earlier, later) && earlier.path.covers(&later.path)
    }

    /// A small vocabulary, so that patterns overlap: a dozen segments, some of them patterns.
    fn segment(stars: bool) -> impl Strategy<Value = String> {
        let texts = ["a", "b", "ab", "aab", "v1", "v1-2", "x.css", "caf%C3%A9", "%40x", "a*b"];
        let patterns = ["*", "a*", "*b", "a*b", "*a*", "v*-*", "a*a*b", "*.css", "%40*", "caf*"];
        let words: Vec<&str> = if stars { [texts, patterns].concat() } else { texts.to_vec() };
        prop::sample::select(words).prop_map(str::to_owned)
    }

    fn path(stars: bool) -> impl Strategy<Value = String> {
        let end = if stars { vec!["", "/", "/**", "/**"] } else { vec!["", "/"] };
        (prop::collection::vec(segment(stars), 0..4), prop::sample::select(end)).prop_map(|(segments, end)| {
            let path = segments.iter().fold(String::new(), |path, segment| path + "/" + segment);
            if path.is_empty() && end.is_empty() { "/".to_owned() } else { path + end }
        })
    }

    fn host(stars: bool) -> impl Strategy<Value = String> {
        let exact = ["example.com", "a.example.com", "b.a.example.com", "example.com:81", "a.example.com:81", "[::1]"];
        let patterns = ["", "*.example.com", "*.a.example.com", "*.com", "example.com", "a.example.com:81"];
        let words = if stars { patterns } else { exact };
        prop::sample::select(words.to_vec()).prop_map(str::to_owned)
    }

    fn table() -> impl Strategy<Value = Vec<Route>> {
        let methods = prop::sample::subsequence(vec!["GET", "POST", "HEAD", "PURGE"], 0..3);
        let one = (host(true), path(true), methods).prop_map(|(host, path, methods)| route(&host, &path, &methods));
        prop::collection::vec(one, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        // "first match wins; no match is 404"
        #[test]
        fn the_index_finds_what_a_look_at_one_route_after_the_other_finds(
            table in table(),
            asked in prop::collection::vec((host(false), path(false), "GET|POST|HEAD|PURGE"), 20),
        ) {
            let routes: Routes = table.iter().cloned().collect();
            for (host, path, method) in asked {
                let (host, method) = (Host::parse(&host).unwrap(), method.parse().unwrap());
                let path = NormalPath::parse(path.as_bytes()).unwrap().decoded();
                prop_assert_eq!(routes.find(&host, &path, &method), scanned(&table, &host, &path, &method));
                prop_assert_eq!(routes.know_host(&host), table.iter().any(|route| route.host.matches(&host)));
            }
        }

        // "a route that earlier ones always win over" is a fault
        #[test]
        fn the_index_finds_the_first_route_that_covers_another(table in table(), later in table()) {
            let routes: Routes = table.iter().cloned().collect();
            for later in &later {
                prop_assert_eq!(routes.covering(later), table.iter().position(|earlier| covers(earlier, later)));
            }
        }
    }

    #[test]
    fn the_first_of_several_wins_however_special_a_later_one_is() {
        let routes: Routes = [route("", "/a/*", &["GET"]), route("a.example.com", "/a/b", &[]), route("", "/**", &[])]
            .into_iter()
            .collect();
        let host = Host::parse("a.example.com").unwrap();
        for (path, method, found) in [("/a/b", "GET", 0), ("/a/b", "HEAD", 0), ("/a/b", "PUT", 1), ("/a/", "GET", 2)] {
            assert_eq!(routes.find(&host, path.as_bytes(), &method.parse().unwrap()), Some(found), "{path} {method}");
        }
    }

    #[test]
    fn very_deep_patterns_are_found_and_dropped_without_deep_recursion() {
        let deep = "/a".repeat(100_000);
        let routes: Routes = [route("", &format!("{deep}/**"), &[])].into_iter().collect();
        let host = Host::parse("example.com").unwrap();
        assert_eq!(routes.find(&host, format!("{deep}/b").as_bytes(), &Method::GET), Some(0));
        assert_eq!(routes.find(&host, &deep.as_bytes()[2..], &Method::GET), None);
    }
}
