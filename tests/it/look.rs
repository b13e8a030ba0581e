//! `pages.logo` and `pages.templates`: a picture and files of one's own on the pages.

use std::path::Path;

use authgate::config;

use crate::gateway::{Gateway, configured, text};

const SVG: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>document.title = 'ours'</script></svg>";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\nand what follows";
const LOGO: &str =
    "[sign_up]\nmode = \"open\"\n[pages]\nlogo = \"logo.picture\"\n[[route]]\nupstream = \"builtin:whoami\"\n";

/// The address of the one asset whose name begins so.
fn address(page: &str, start: &str) -> String {
    let at = page.find(&format!("\"/.auth/assets/{start}-")).unwrap_or_else(|| panic!("{start}: {page}")) + 1;
    page[at..].split('"').next().unwrap().to_owned()
}

#[test]
fn a_logo_is_shown_as_a_picture_under_a_name_of_its_content_and_a_reload_takes_a_new_one() {
    let folder = configured(LOGO);
    std::fs::write(folder.path().join("logo.picture"), SVG).unwrap();
    let mut gateway = Gateway::serve(folder);
    let mut client = gateway.client();
    let pages = ["/.auth/login", "/.auth/signup"].map(|path| client.get(path, &[]).text());
    let drawing = address(&pages[0], "logo");
    for page in &pages {
        assert!(page.contains(&format!("<img class=\"logo\" src=\"{drawing}\" alt=\"\">")), "{page}");
        assert!(!page.contains("<svg"), "never part of the page: {page}");
    }
    let answer = client.get(&drawing, &[]);
    assert_eq!((answer.status, answer.text().as_str()), (200, SVG));
    assert!(drawing.rsplit('.').next() == Some("svg"));
    assert!(answer.field("content-type") == Some("image/svg+xml"));
    assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
    assert!(answer.field("cache-control").unwrap().contains("immutable"));
    // opened by itself it is a document of our origin: no script of it runs (HTML, "sandboxing")
    let policy = answer.field("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.ends_with("sandbox"), "{policy}");
    std::fs::write(gateway.folder().join("logo.picture"), PNG).unwrap();
    gateway.reload(LOGO);
    let picture = address(&client.get("/.auth/login", &[]).text(), "logo");
    let answer = client.get(&picture, &[("Accept-Encoding", "gzip")]);
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("image/png")));
    assert!(picture.rsplit('.').next() == Some("png"));
    assert!(answer.body == PNG);
    assert!(answer.field("content-encoding").is_none());
    assert_eq!(client.get(&drawing, &[]).status, 404);
    gateway.reload(&LOGO.replace("logo.picture", ""));
    assert!(!client.get("/.auth/login", &[]).text().contains("<img"));
}

#[test]
fn files_of_a_folder_stand_in_the_place_of_the_shipped_ones() {
    let own = "[pages]\ntemplates = \"look\"\n[[route]]\nupstream = \"builtin:whoami\"\n";
    let folder = configured(own);
    std::fs::create_dir(folder.path().join("look")).unwrap();
    std::fs::write(folder.path().join("look/style.css"), "h1{color:red}").unwrap();
    std::fs::write(folder.path().join("look/.keep"), "").unwrap();
    let gateway = Gateway::serve(folder);
    let mut client = gateway.client();
    let page = client.get("/.auth/login", &[]).text();
    let style = client.get(&address(&page, "style"), &[]);
    assert_eq!((style.status, style.text().as_str()), (200, "h1{color:red}"));
    assert_eq!(style.field("content-type"), Some("text/css; charset=utf-8"));
    let script = client.get(&address(&page, "script"), &[]).text();
    assert_eq!(
        script,
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("login-ui/script.js")).unwrap()
    );
}

#[test]
fn a_logo_or_a_folder_that_cannot_be_used_is_a_fault() {
    let folder = tempfile::TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("page.svg"), "<!doctype html><p>no drawing</p>").unwrap();
    std::fs::write(at("large.png"), [PNG, &vec![0; 256 << 10]].concat()).unwrap();
    std::fs::write(at("largest.png"), [PNG, &vec![0; (256 << 10) - PNG.len()]].concat()).unwrap();
    std::fs::write(at("name.png"), "GIF89a").unwrap();
    std::fs::create_dir(at("look")).unwrap();
    for (name, content) in [("login.html", &b"<p>"[..]), ("styles.css", b""), ("icon.svg", b"\xff"), ("photo.jpg", b"")]
    {
        std::fs::write(at("look").join(name), content).unwrap();
    }
    let faults = |pages: &str| {
        let text = text(&format!("[pages]\n{pages}\n[[route]]\nupstream = \"builtin:whoami\"\n"));
        match config::parse(&text, "gateway.toml", folder.path().to_path_buf(), &|_| None) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.list().iter().map(|fault| format!("{}; {}", fault.what, fault.remedy)).collect(),
        }
    };
    for (pages, what) in [
        ("logo = \"nowhere.svg\"", "cannot read "),
        ("logo = \"look\"", "is not a file"),
        ("logo = \"page.svg\"", "is not an SVG, PNG or WebP file"),
        ("logo = \"name.png\"", "is not an SVG, PNG or WebP file"),
        ("logo = \"large.png\"", "is larger than 256 KiB"),
        ("templates = \"nowhere\"", "cannot read "),
        ("templates = \"name.png\"", "cannot read "),
    ] {
        let said = faults(pages);
        assert!(said.len() == 1 && said[0].contains(what), "{pages}: {said:?}");
    }
    let said = faults("templates = \"look\"").join("\n");
    assert!(said.contains("login.html is compiled into the binary and cannot be overridden; remove it"), "{said}");
    assert!(said.contains("styles.css is not one of the page files; did you mean style.css?"), "{said}");
    assert!(
        said.contains("icon.svg is not UTF-8") && said.contains("photo.jpg is not one of the page files"),
        "{said}"
    );
    assert_eq!(faults("logo = \"largest.png\""), [""; 0]);
}
