//! Metrics of identity providers: sign-ins through them, and the gateway's own requests to them. Labels are names from
//! the configuration and fixed words.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::series::Histogram;
use super::text::Text;

/// Histogram bounds in microseconds.
const REQUEST: [u64; 8] = [10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 3_000_000, 10_000_000];

/// The process-wide instance.
pub static PROVIDERS: ProviderMetrics = ProviderMetrics::new();

/// Metrics of providers.
#[derive(Debug)]
pub struct ProviderMetrics(Mutex<Series>);

/// By provider first, so that those of a removed one can be dropped.
#[derive(Debug)]
struct Series {
    /// Provider, result.
    logins: BTreeMap<(String, &'static str), u64>,
    /// Provider, what was requested, result.
    requests: BTreeMap<(String, &'static str, &'static str), u64>,
    /// Provider, what was requested.
    seconds: BTreeMap<(String, &'static str), Histogram>,
}

impl ProviderMetrics {
    const fn new() -> Self {
        Self(Mutex::new(Series { logins: BTreeMap::new(), requests: BTreeMap::new(), seconds: BTreeMap::new() }))
    }

    /// Records how a sign-in ended.
    pub fn login(&self, provider: &str, result: &'static str) {
        *self.0.lock().logins.entry((provider.to_owned(), result)).or_default() += 1;
    }

    /// Records a request to a provider. `what`: the kind of document; `result`: `ok` or why there is none.
    pub fn request(&self, provider: &str, what: &'static str, result: &'static str, took: Duration) {
        let mut series = self.0.lock();
        *series.requests.entry((provider.to_owned(), what, result)).or_default() += 1;
        let seconds = series.seconds.entry((provider.to_owned(), what));
        seconds.or_insert_with(|| Histogram::new(&REQUEST)).observe(took);
    }

    /// Drops the series of providers that are not configured any more, so that their number stays bounded.
    pub fn keep<'n>(&self, names: impl Iterator<Item = &'n str>) {
        let names: Vec<&str> = names.collect();
        let mut series = self.0.lock();
        series.logins.retain(|(name, _), _| names.contains(&name.as_str()));
        series.requests.retain(|(name, ..), _| names.contains(&name.as_str()));
        series.seconds.retain(|(name, _), _| names.contains(&name.as_str()));
    }

    /// Writes further samples of the sign-ins family.
    pub(super) fn write_logins(&self, text: &mut Text) {
        for ((provider, result), count) in &self.0.lock().logins {
            text.total("logins", &[("method", "provider"), ("provider", provider), ("result", result)], *count);
        }
    }

    pub(super) fn write(&self, text: &mut Text) {
        let series = self.0.lock();
        text.counter("provider_requests", "Requests to identity providers, by result");
        for ((provider, what, result), count) in &series.requests {
            text.total("provider_requests", &[("provider", provider), ("what", what), ("result", result)], *count);
        }
        text.histogram("provider_request_seconds", "Duration of a request to an identity provider");
        for ((provider, what), histogram) in &series.seconds {
            text.times("provider_request_seconds", &[("provider", provider), ("what", what)], histogram);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Format;

    #[test]
    fn a_provider_that_is_removed_takes_its_series_along() {
        let metrics = ProviderMetrics::new();
        for provider in ["corp", "gone"] {
            metrics.login(provider, "ok");
            metrics.request(provider, "token", "ok", Duration::from_millis(20));
        }
        metrics.keep(["corp", "new"].into_iter());
        let mut text = Text::new(Format::Classic);
        metrics.write_logins(&mut text);
        metrics.write(&mut text);
        let text = text.finish();
        for line in [
            "authgate_logins_total{method=\"provider\",provider=\"corp\",result=\"ok\"} 1",
            "authgate_provider_requests_total{provider=\"corp\",what=\"token\",result=\"ok\"} 1",
            "authgate_provider_request_seconds_bucket{provider=\"corp\",what=\"token\",le=\"0.05\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("gone"), "{text}");
    }
}
