//! Sign-in through providers, end to end: the real binary, a provider on a socket of its own, and what a browser sends.

use serde_json::json;

use crate::client::Answer;
use crate::gateway::{Gateway, PASSWORD, configured};
use crate::provider::{ACCESS_TOKEN, Provider, SECRET};

pub const ROUTE: &str = "[[route]]\nupstream = \"builtin:whoami\"\n";

pub fn serve(rest: &str) -> Gateway {
    Gateway::serve_with(configured(rest), &[("CLIENT_SECRET", SECRET)])
}

/// One provider named `corp`.
pub fn with_provider(provider: &Provider, more: &str) -> Gateway {
    serve(&format!("{}{ROUTE}", provider.configured("corp", more)))
}

/// A browser: the cookies that it holds.
#[derive(Default, Clone)]
pub struct Browser(pub Vec<(String, String)>);

impl Browser {
    pub fn get(&mut self, gateway: &Gateway, path: &str) -> Answer {
        let cookies = self.cookies();
        let fields = [
            ("Cookie", cookies.as_str()),
            ("Accept", "text/html"),
            ("Sec-Fetch-Mode", "navigate"),
            ("Sec-Fetch-Site", "cross-site"),
        ];
        let answer = gateway.client().get(path, &fields);
        self.keep(&answer);
        answer
    }

    pub fn post(&mut self, gateway: &Gateway, path: &str, form: &str) -> Answer {
        let cookies = self.cookies();
        let fields = [
            ("Cookie", cookies.as_str()),
            ("Accept", "text/html"),
            ("Sec-Fetch-Mode", "navigate"),
            ("Sec-Fetch-Site", "same-origin"),
        ];
        let answer = gateway.client().post_form(path, &fields, form);
        self.keep(&answer);
        answer
    }

    pub fn cookies(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    pub fn keep(&mut self, answer: &Answer) {
        for cookie in answer.all("set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            self.0.retain(|(own, _)| own != name);
            if !value.is_empty() {
                self.0.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// The e-mail of the account that is signed in.
    pub fn who(&self, gateway: &Gateway) -> Option<String> {
        let answer = gateway.client().get("/.auth/me", &[("Cookie", &self.cookies())]);
        (answer.status == 200).then(|| answer.json()["email"].as_str().unwrap().to_owned())
    }

    /// Goes to the provider and comes back; what the callback answers.
    pub fn through(&mut self, gateway: &Gateway, provider: &Provider, start: &str) -> Answer {
        let started = self.get(gateway, start);
        assert_eq!(started.status, 303, "{started:?}");
        let callback = provider.agree(started.field("location").unwrap());
        self.get(gateway, &callback)
    }
}

/// Where a page that leads on by a refresh leads.
pub fn leads_to(page: &str) -> String {
    let url = page.split("content=\"0;url=").nth(1).unwrap().split('"').next().unwrap();
    url.replace("&amp;", "&").replace("&#38;", "&")
}

pub fn hidden(page: &str, name: &str) -> String {
    let at = page.find(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("no {name} in {page}"));
    page[at..].split('"').nth(3).unwrap().to_owned()
}

#[test]
fn people_sign_up_and_in_through_a_provider_and_nothing_secret_is_logged() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "sign_up = \"open\"\n");
    gateway.first_account();
    provider.person("grace-1", "grace@example.com", true);
    let mut browser = Browser::default();
    let page = browser.get(&gateway, "/.auth/login?callbackUrl=/app%3Fa%3Db").text();
    let link = "href=\"/.auth/oauth/corp?callbackUrl=%2Fapp%3Fa%3Db\"";
    assert!(page.contains(link) && page.contains("Continue with <span dir=\"auto\">Corp corp</span>"), "{page}");
    let answer = browser.through(&gateway, &provider, "/.auth/oauth/corp?callbackUrl=%2Fapp%3Fa%3Db");
    assert_eq!((answer.status, answer.field("location")), (303, Some("/app?a=b")), "{answer:?}");
    assert_eq!(browser.who(&gateway).as_deref(), Some("grace@example.com"));
    // again, in another browser: the same account
    let mut other = Browser::default();
    assert_eq!(other.through(&gateway, &provider, "/.auth/oauth/corp").field("location"), Some("/"));
    let id =
        |browser: &Browser| gateway.client().get("/.auth/me", &[("Cookie", &browser.cookies())]).json()["id"].clone();
    assert_eq!(id(&browser), id(&other));
    let oauth = other.0.iter().find(|(name, _)| name == "authgate-oauth").unwrap().1.clone();
    let seen = gateway.client().get("/", &[("Cookie", &other.cookies())]);
    assert!(!seen.text().contains(&oauth), "the cookie of attempts is ours alone: {}", seen.text());
    let log = gateway.into_log();
    for secret in [SECRET, ACCESS_TOKEN, "code-0", "code=", "state=", &oauth] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[test]
fn an_answer_counts_in_its_own_browser_once() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "sign_up = \"open\"\n");
    provider.person("grace-1", "grace@example.com", true);
    let mut browser = Browser::default();
    let started = browser.get(&gateway, "/.auth/oauth/corp?callbackUrl=/app");
    let callback = provider.agree(started.field("location").unwrap());
    let mut stranger = Browser::default();
    assert_eq!(stranger.get(&gateway, &callback).status, 400, "no cookie");
    stranger.get(&gateway, "/.auth/oauth/corp");
    assert_eq!(stranger.get(&gateway, &callback).status, 400, "another browser's");
    assert_eq!(browser.get(&gateway, &format!("{callback}&state=x")).status, 400, "repeated");
    assert_eq!(browser.get(&gateway, "/.auth/oauth/corp/callback?code=x").status, 400, "no state");
    assert_eq!(browser.get(&gateway, "/.auth/oauth/corp/callback?code=x&state=AAAA").status, 400);
    assert!(stranger.who(&gateway).is_none() && browser.who(&gateway).is_none());
    let tokens = || provider.requests.lock().unwrap().iter().filter(|target| *target == "/token").count();
    assert_eq!(tokens(), 0, "nothing of this reached the provider");
    assert_eq!(browser.get(&gateway, &callback).field("location"), Some("/app"));
    assert!(browser.who(&gateway).is_some());
    // a double click, and the back button later
    assert_eq!(browser.get(&gateway, &callback).field("location"), Some("/app"));
    assert_eq!(browser.get(&gateway, "/.auth/oauth/corp/callback?code=x&state=AAAA").field("location"), Some("/"));
    assert_eq!(tokens(), 1);
}

#[test]
fn twelve_tabs_land_each_on_its_own_page_in_one_session() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "sign_up = \"open\"\n");
    provider.person("grace-1", "grace@example.com", true);
    let mut browser = Browser::default();
    let mut callbacks = Vec::new();
    for tab in 0..12 {
        let started = browser.get(&gateway, &format!("/.auth/oauth/corp?callbackUrl=/tab/{tab}"));
        callbacks.push(provider.agree(started.field("location").unwrap()));
    }
    for (tab, callback) in callbacks.iter().enumerate() {
        assert_eq!(browser.get(&gateway, callback).field("location"), Some(&*format!("/tab/{tab}")));
    }
    let sessions = gateway.client().get("/.auth/account/sessions", &[("Cookie", &browser.cookies())]).json();
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1, "{sessions}");
}

/// Passwords work, the page says what is wrong, and the provider is found when it is back.
#[test]
fn a_provider_that_is_down_makes_its_button_fail_and_nothing_else() {
    let provider = Provider::start();
    provider.answer("/.well-known/openid-configuration", 503, "{}");
    let gateway = with_provider(&provider, "");
    let cookie = gateway.first_account();
    assert_eq!(gateway.client().get("/", &[("Cookie", &cookie)]).status, 200);
    let mut browser = Browser::default();
    let failed = browser.get(&gateway, "/.auth/oauth/corp?callbackUrl=/app");
    assert_eq!(failed.field("location"), Some("/.auth/login?callbackUrl=/app&error=OAuthSignin"));
    let page = browser.get(&gateway, failed.field("location").unwrap()).text();
    assert!(page.contains("This provider cannot be reached right now."), "{page}");
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 200);
    assert_eq!(browser.get(&gateway, "/.auth/oauth/other").status, 404);
}

/// What a person sees who cancels.
#[test]
fn the_providers_own_words_are_not_shown() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "");
    let mut browser = Browser::default();
    let started = browser.get(&gateway, "/.auth/oauth/corp?callbackUrl=/app");
    let location = started.field("location").unwrap().to_owned();
    let state = location.split("state=").nth(1).unwrap().split('&').next().unwrap();
    let issuer = provider.issuer.replace(':', "%3A").replace('/', "%2F");
    let answer = format!(
        "/.auth/oauth/corp/callback?error=access_denied&error_description=%3Cb%3Ecall%20666%3C/b%3E&state={state}&iss={issuer}"
    );
    let back = browser.get(&gateway, &answer);
    assert_eq!(back.field("location"), Some("/.auth/login?callbackUrl=/app&error=Callback"), "{back:?}");
    let page = browser.get(&gateway, back.field("location").unwrap()).text();
    assert!(page.contains("The sign-in was cancelled.") && !page.contains("666"), "{page}");
}

#[test]
fn a_person_without_an_account_is_told_so_where_sign_up_is_closed() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "");
    gateway.first_account();
    provider.person("grace-1", "grace@example.com", true);
    let mut browser = Browser::default();
    let refused = browser.through(&gateway, &provider, "/.auth/oauth/corp");
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("There is no account here for you yet."), "{}", refused.text());
    assert!(browser.who(&gateway).is_none());
}

/// The collision page: the account's password, and from then on either works.
#[test]
fn an_address_with_an_account_is_signed_in_to_once_and_then_either_works() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "");
    gateway.first_account();
    let mut browser = Browser::default();
    let page = browser.through(&gateway, &provider, "/.auth/oauth/corp?callbackUrl=/app");
    assert_eq!(page.status, 200, "{page:?}");
    let page = page.text();
    assert!(page.contains("There is already an account with the address"), "{page}");
    assert!(browser.who(&gateway).is_none());
    let pending = hidden(&page, "pending");
    let form = |password: &str| format!("pending={pending}&callbackUrl=%2Fapp&password={}", password.replace(' ', "+"));
    let wrong = browser.post(&gateway, "/.auth/oauth/link", &form("wrong"));
    assert_eq!((wrong.status, wrong.text().contains("Incorrect password.")), (401, true));
    let mut stranger = Browser::default();
    assert_eq!(stranger.post(&gateway, "/.auth/oauth/link", &form(PASSWORD)).status, 400, "another browser");
    let right = browser.post(&gateway, "/.auth/oauth/link", &form(PASSWORD));
    assert_eq!((right.status, right.field("location")), (303, Some("/app")), "{right:?}");
    assert_eq!(browser.who(&gateway).as_deref(), Some("ada@example.com"));
    let mut other = Browser::default();
    assert_eq!(other.through(&gateway, &provider, "/.auth/oauth/corp").status, 303);
    assert_eq!(other.who(&gateway).as_deref(), Some("ada@example.com"));
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 200);
}

/// From the account page: linked by a guarded form, then removed.
#[test]
fn a_provider_is_added_and_removed_on_the_account_page() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "");
    gateway.first_account();
    provider.person("ada-private", "private@example.com", true);
    let mut browser = Browser::default();
    let signed_in = browser.post(
        &gateway,
        "/.auth/login",
        &format!("email=ada%40example.com&password={}", PASSWORD.replace(' ', "+")),
    );
    assert_eq!(signed_in.status, 303);
    let page = browser.get(&gateway, "/.auth/account").text();
    assert!(page.contains("action=\"/.auth/account/link/corp\""), "{page}");
    let leading = browser.post(&gateway, "/.auth/account/link/corp", "");
    assert_eq!((leading.status, leading.field("location")), (200, None), "no redirect of a form: {leading:?}");
    let text = leading.text();
    let url = leads_to(&text);
    let callback = provider.agree(&url);
    // finished in a session of somebody else: nothing is linked
    gateway.add_user("bob@example.com", &[]);
    let mut bob = browser.clone();
    bob.post(&gateway, "/.auth/logout", "");
    let mut browser = Browser(browser.0.iter().filter(|(name, _)| name == "authgate-oauth").cloned().collect());
    let refused = browser.get(&gateway, &callback);
    assert_eq!(refused.status, 403, "{refused:?}");
    let signed_in = browser.post(
        &gateway,
        "/.auth/login",
        &format!("email=ada%40example.com&password={}", PASSWORD.replace(' ', "+")),
    );
    assert_eq!(signed_in.status, 303);
    let text = browser.post(&gateway, "/.auth/account/link/corp", "").text();
    let url = leads_to(&text);
    let linked = browser.get(&gateway, &provider.agree(&url));
    assert_eq!(linked.field("location"), Some("/.auth/account?saved=linked"), "{linked:?}");
    let page = browser.get(&gateway, "/.auth/account").text();
    assert!(page.contains("action=\"/.auth/account/unlink\"") && hidden(&page, "subject") == "ada-private", "{page}");
    let mut other = Browser::default();
    other.through(&gateway, &provider, "/.auth/oauth/corp");
    assert_eq!(other.who(&gateway).as_deref(), Some("ada@example.com"), "whatever its e-mail is");
    let gone = browser.post(&gateway, "/.auth/account/unlink", "provider=corp&subject=ada-private");
    assert_eq!(gone.field("location"), Some("/.auth/account?saved=unlinked"), "{gone:?}");
    assert!(other.who(&gateway).is_none(), "sessions that began with it have ended");
    assert!(browser.who(&gateway).is_some());
}

#[test]
fn a_form_of_another_site_links_nothing() {
    let provider = Provider::start();
    let gateway = with_provider(&provider, "");
    let cookie = gateway.first_account();
    let fields =
        [("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example.com")];
    for path in ["/.auth/account/link/corp", "/.auth/account/unlink", "/.auth/oauth/link"] {
        assert_eq!(gateway.client().post_form(path, &fields, "provider=corp&subject=x").status, 403, "{path}");
    }
    assert_eq!(gateway.client().post_form("/.auth/account/link/corp", &[], "").status, 401);
}

/// `session.same_site = "strict"`: no session would arrive with a navigation from elsewhere, nor with a redirect
/// after it, so the answer is sent on by a page of the gateway's own.
#[test]
fn with_strict_cookies_the_answer_is_sent_on_by_a_page() {
    let provider = Provider::start();
    let gateway = serve(&format!(
        "[session]\nsame_site = \"strict\"\n{}{ROUTE}",
        provider.configured("corp", "sign_up = \"open\"\n")
    ));
    provider.person("grace-1", "grace@example.com", true);
    let mut browser = Browser::default();
    let started = browser.get(&gateway, "/.auth/oauth/corp?callbackUrl=/app");
    let cookie = started.all("set-cookie").join("\n");
    assert!(cookie.contains("authgate-oauth=") && cookie.contains("SameSite=Lax"), "{cookie}");
    let callback = provider.agree(started.field("location").unwrap());
    let page = browser.get(&gateway, &callback);
    assert_eq!((page.status, page.all("set-cookie").len()), (200, 0), "{page:?}");
    assert_eq!(leads_to(&page.text()), format!("{callback}&from_here=1"));
    assert!(browser.who(&gateway).is_none());
    let answer = browser.get(&gateway, &leads_to(&page.text()));
    assert_eq!((answer.status, answer.field("location")), (303, Some("/app")), "{answer:?}");
    assert!(answer.all("set-cookie").iter().any(|cookie| cookie.contains("SameSite=Strict")));
}

/// What next-auth/react 4 and Auth.js 5 send and read.
#[test]
fn clients_of_auth_js_start_at_their_own_endpoints_and_keep_their_redirect_uri() {
    let provider = Provider::start();
    let gateway = serve(&format!(
        "[authjs]\nbase_path = \"/api/auth\"\n{}{ROUTE}",
        provider.configured("corp", "sign_up = \"open\"\n")
    ));
    provider.person("grace-1", "grace@example.com", true);
    let host = format!("http://{}", gateway.host());
    let providers = gateway.client().get("/api/auth/providers", &[]).json();
    let names: Vec<&String> = providers.as_object().unwrap().keys().collect();
    assert_eq!(names, ["credentials", "corp"]);
    let expected = json!({
        "id": "corp", "name": "Corp corp", "type": "oauth",
        "signinUrl": format!("{host}/api/auth/signin/corp"), "callbackUrl": format!("{host}/api/auth/callback/corp"),
    });
    assert_eq!(providers["corp"], expected);
    let mut browser = Browser::default();
    let csrf = gateway.client().get("/api/auth/csrf", &[]);
    browser.keep(&csrf);
    let token = csrf.json()["csrfToken"].as_str().unwrap().to_owned();
    let wrong = browser.post(&gateway, "/api/auth/signin/corp", "csrfToken=x&json=true");
    assert!(wrong.json()["url"].as_str().unwrap().ends_with("/api/auth/signin?csrf=true"), "{wrong:?}");
    let started = browser.post(
        &gateway,
        "/api/auth/signin/corp?login_hint=grace&redirect_uri=https://evil.example.com",
        &format!("csrfToken={token}&callbackUrl=%2Fapp&json=true"),
    );
    let url = started.json()["url"].as_str().unwrap().to_owned();
    assert!(url.contains("login_hint=grace") && !url.contains("evil"), "{url}");
    let callback = provider.agree(&url);
    assert!(callback.starts_with("/api/auth/callback/corp?"), "{callback}");
    let answer = browser.get(&gateway, &callback);
    assert_eq!((answer.status, answer.field("location")), (303, Some("/app")), "{answer:?}");
    assert_eq!(browser.who(&gateway).as_deref(), Some("grace@example.com"));
    provider.answer("/.well-known/openid-configuration", 503, "{}");
}
