//! What an API token allows: scopes of methods and paths.

use http::Method;

use crate::config::PathPattern;

/// One scope: methods (`None`: all) on a path pattern.
#[derive(Debug, Clone)]
pub struct Scope {
    methods: Option<Vec<Method>>,
    path: PathPattern,
}

/// The scopes of a token; without scopes it may do whatever its account may.
#[derive(Debug)]
pub struct Grant {
    scopes: Vec<Scope>,
}

impl Scope {
    /// Parses `GET /api/**`, `GET,POST /api/**` or `* /api/**`. Methods are mandatory: omitting them never means all.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("invalid scope `{text}`: {why}");
        let (methods, path) = text.trim().rsplit_once(' ').ok_or_else(|| {
            wrong("use methods and a path, for example `GET /api/**`, or `* /api/**` for all methods")
        })?;
        let is_method = |name: &str| !name.is_empty() && name != "*" && name.bytes().all(|b| b.is_ascii_uppercase());
        let method = |name: &str| Method::from_bytes(name.trim().as_bytes()).ok().filter(|_| is_method(name.trim()));
        let methods: Option<Vec<Method>> = match methods.trim() {
            "*" => None,
            names => Some(names.split(',').map(method).collect::<Option<_>>().ok_or_else(|| {
                wrong("use upper-case methods separated by commas, for example `GET,POST /api/**`; `*` means all")
            })?),
        };
        Ok(Self { methods, path: PathPattern::parse(path).map_err(wrong)? })
    }

    /// Parses a stored scope. Older versions allowed no methods, meaning all; such tokens stay valid.
    pub(crate) fn kept(text: &str) -> Result<Self, String> {
        let (methods, path) = text.trim().rsplit_once(' ').unwrap_or(("", text.trim()));
        let named = methods.split(',').map(str::trim).filter(|name| !name.is_empty()).collect::<Vec<_>>().join(",");
        Self::parse(&format!("{} {path}", if named.is_empty() { "*" } else { &named }))
    }

    /// GET includes HEAD.
    fn takes(&self, method: &Method, path: &[u8]) -> bool {
        let method_fits = self.methods.as_ref().is_none_or(|methods| {
            methods.contains(method) || (method == Method::HEAD && methods.contains(&Method::GET))
        });
        method_fits && self.path.matches(path)
    }
}

impl Grant {
    pub(crate) fn new(scopes: Vec<Scope>) -> Self {
        Self { scopes }
    }

    /// Whether the token allows this request; `path` is percent-decoded.
    pub fn allows(&self, method: &Method, path: &[u8]) -> bool {
        self.scopes.is_empty() || self.scopes.iter().any(|scope| scope.takes(method, path))
    }
}
