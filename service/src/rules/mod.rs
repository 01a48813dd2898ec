//! The rules that a site's folder carries beside its files: `helix.toml`, `_redirects`, `_headers`, `netlify.toml`, and the `config.json` of a
//! Build Output folder, compiled to routes.
//!
//! The same here for the command, which refuses a folder before anything is sent, and for origin, whose word counts.
//! It reads no file: who calls it has the texts. What a rule means is [`helix_routing::routes`]' business.

use std::collections::BTreeMap;

use helix_routing::gate::AskKind;
use helix_routing::routes::output::{Function, OutputConfig};
use helix_routing::routes::{RouteError, Routes, SiteConfig};
use toml::de::{DeTable, DeValue};

mod netlify;
pub mod output;

use output::{MAX_OUTPUT_BYTES, OUTPUT_CONFIG};

/// How files are served, and which requests go where.
pub const CONFIG: &str = "helix.toml";
/// Redirects and rewrites.
pub const REDIRECTS: &str = "_redirects";
/// Redirects and header fields behind those of the two, as Netlify's users write them.
pub const NETLIFY: &str = "netlify.toml";
/// Response header fields.
pub const HEADERS: &str = "_headers";
/// Files of a folder that are rules: they are read, and never served.
pub const FILES: [&str; 5] = [CONFIG, REDIRECTS, HEADERS, NETLIFY, OUTPUT_CONFIG];
/// Largest file of rules, in bytes: many thousand rules, and still read in a moment.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The texts of one folder, as far as it has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Of [`CONFIG`].
    pub config: Option<String>,
    /// Of [`REDIRECTS`].
    pub redirects: Option<String>,
    /// Of [`HEADERS`].
    pub headers: Option<String>,
    /// Of [`NETLIFY`].
    pub netlify: Option<String>,
    /// Of [`OUTPUT_CONFIG`].
    pub output: Option<String>,
    /// The functions that lie beside that, by their path.
    pub functions: BTreeMap<String, Function>,
    /// Whether what needs a runtime is left out.
    pub static_only: bool,
}

/// Largest text of `file`, one of [`FILES`], in bytes.
#[must_use]
pub fn max_bytes(file: &str) -> u64 {
    if file == OUTPUT_CONFIG {
        MAX_OUTPUT_BYTES
    } else {
        MAX_FILE_BYTES
    }
}

impl Rules {
    /// Notes a function, by its path, with what declares it.
    pub fn add_function(&mut self, name: &str, declared: &[u8]) {
        self.functions
            .insert(name.to_owned(), output::function(declared));
    }

    /// What a Build Output folder says, if this is one.
    ///
    /// # Errors
    /// Everything that has not the shape it should, each with its line.
    pub fn output_config(&self) -> Result<Option<OutputConfig>, Vec<RouteError>> {
        let Some(text) = &self.output else {
            return Ok(None);
        };
        let mut config = output::read(text)?;
        config.functions.clone_from(&self.functions);
        Ok(Some(config))
    }

    /// Takes the text of `file`, one of [`FILES`].
    ///
    /// # Errors
    /// When it is no text, or too much of it.
    pub fn add(&mut self, file: &'static str, bytes: Vec<u8>) -> Result<(), RouteError> {
        if bytes.len() as u64 > max_bytes(file) {
            return Err(too_large(file));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let problem = "this line is not UTF-8".to_owned();
            refused(file, line(before), problem)
        })?;
        match file {
            CONFIG => self.config = Some(text),
            REDIRECTS => self.redirects = Some(text),
            NETLIFY => self.netlify = Some(text),
            OUTPUT_CONFIG => self.output = Some(text),
            _ => self.headers = Some(text),
        }
        Ok(())
    }

    /// The routes they mean.
    ///
    /// # Errors
    /// Everything that is wrong, each with its file and line.
    pub fn compile(&self) -> Result<Routes, Vec<RouteError>> {
        let (config, mut errors) = match self.config.as_deref().map(read_config) {
            None => (SiteConfig::default(), Vec::new()),
            Some(Ok(config)) => (config, Vec::new()),
            Some(Err(error)) => (SiteConfig::default(), vec![error]),
        };
        // Compiled even so: who mends one file wants to know of the others too.
        let more = match self.netlify.as_deref().map(netlify::read) {
            None => <_>::default(),
            Some(Ok(more)) => more,
            Some(Err(wrong)) => {
                errors.extend(wrong);
                <_>::default()
            }
        };
        let own = (self.redirects.as_deref(), self.headers.as_deref());
        let routes = Routes::compile_with(config, own, &more);
        let routes = routes.and_then(|routes| self.with_output(routes));
        match routes {
            Ok(routes) if errors.is_empty() => return Ok(routes),
            Ok(_) => {}
            Err(more) => errors.extend(more),
        }
        Err(errors)
    }

    fn with_output(&self, mut routes: Routes) -> Result<Routes, Vec<RouteError>> {
        let Some(config) = self.output_config()? else {
            return Ok(routes);
        };
        let beside = [
            (REDIRECTS, &self.redirects),
            (HEADERS, &self.headers),
            (NETLIFY, &self.netlify),
        ];
        let beside = beside.into_iter().filter(|(_, text)| text.is_some());
        let mut errors: Vec<RouteError> = beside
            .map(|(file, _)| {
                let problem =
                    "has no meaning beside a Build Output folder, whose config.json has its own"
                        .to_owned();
                refused(file, 1, problem)
            })
            .collect();
        match config.compile(self.static_only) {
            Ok((output, upstreams)) if errors.is_empty() => {
                routes.output = Some(Box::new(output));
                routes.upstreams.extend(upstreams);
                return Ok(routes);
            }
            Ok(_) => {}
            Err(problems) => errors.extend(
                problems
                    .into_iter()
                    .map(|wrong| refused(OUTPUT_CONFIG, wrong.line, wrong.problem)),
            ),
        }
        Err(errors)
    }
}

impl Rules {
    /// What is told to who declares gates that run commands, where there is nothing that could run them.
    #[must_use]
    pub fn refuse_commands(&self) -> Vec<RouteError> {
        let text = self.config.as_deref().unwrap_or_default();
        let Ok(config) = toml::from_str::<SiteConfig>(text) else {
            return Vec::new();
        };
        let gates = config.gates.iter().enumerate();
        let commands = gates.filter(|(_, gate)| gate.kind == AskKind::Exec);
        let refused = commands.map(|(at, gate)| {
            let problem = format!(
                "gates[{at}].kind: gate {} runs a command, which needs a runtime on the edges; this fleet has none",
                gate.name
            );
            refused(CONFIG, line_of(text, &format!("gates[{at}].kind")), problem)
        });
        refused.collect()
    }
}

/// What a file of rules is told that is larger than [`max_bytes`].
#[must_use]
pub fn too_large(file: &'static str) -> RouteError {
    let problem = format!(
        "the file has more than the {} bytes allowed",
        max_bytes(file)
    );
    refused(file, 1, problem)
}

const fn refused(file: &'static str, line: usize, problem: String) -> RouteError {
    RouteError {
        file,
        line,
        problem,
    }
}

fn read_config(text: &str) -> Result<SiteConfig, RouteError> {
    let config: SiteConfig = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.as_bytes().get(..at).unwrap_or_default();
        // Several lines of message would not be one problem per line.
        let problem = error.message().replace('\n', " ");
        refused(CONFIG, line(before), problem)
    })?;
    config.check().map_err(|wrong| {
        let problem = wrong.to_string().replace('\n', " ");
        refused(CONFIG, line_of(text, &wrong.key), problem)
    })?;
    Ok(config)
}

/// The line after these bytes, from 1.
fn line(before: &[u8]) -> usize {
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The line where `key` stands, as in `upstreams.api.timeouts.connect` or `forward[0].path`: that of its innermost part
/// that is written down.
fn line_of(text: &str, key: &str) -> usize {
    let Ok(table) = DeTable::parse(text) else {
        return 1;
    };
    let mut at = 0;
    let mut value = DeValue::Table(table.into_inner());
    for part in key.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        value = match value {
            DeValue::Table(table) => {
                let Some((name, inner)) = table
                    .into_iter()
                    .find(|(name, _)| name.get_ref().as_ref() == part)
                else {
                    break;
                };
                at = name.span().start;
                inner.into_inner()
            }
            DeValue::Array(array) => {
                let inner = part
                    .parse()
                    .ok()
                    .and_then(|index: usize| array.into_iter().nth(index));
                let Some(inner) = inner else { break };
                at = inner.span().start;
                inner.into_inner()
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => break,
        };
    }
    line(text.as_bytes().get(..at).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: &str) -> Rules {
        let mut rules = Rules::default();
        rules.add(CONFIG, config.as_bytes().to_vec()).unwrap();
        rules
    }

    #[test]
    fn no_rules_and_default_rules_are_no_routes() {
        assert_eq!(Rules::default().compile(), Ok(Routes::default()));
        assert_eq!(of("# nothing\n").compile(), Ok(Routes::default()));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let errors = of("# rules\n[static]\nhtml_handlin = \"none\"\n")
            .compile()
            .unwrap_err();
        let text = errors[0].to_string();
        assert!(text.starts_with("helix.toml:3: "), "{text}");
        assert!(text.contains("html_handlin"), "{text}");
    }

    #[test]
    fn a_rule_that_names_no_upstream_is_refused_at_its_line() {
        let errors = of("[[forward]]\npath = \"/api/*\"\nupstream = \"api\"\n")
            .compile()
            .unwrap_err();
        let text = errors[0].to_string();
        assert!(
            text.starts_with("helix.toml:3: ") && text.contains("api"),
            "{text}"
        );
    }

    #[test]
    fn a_wrong_gate_is_refused_at_the_line_of_its_key() {
        let good = "[[gates]]\nname = \"home\"\nkind = \"http\"\n\n";
        for (bad, line, words) in [
            ("[[gates]]\nname = \"a\"\nkind = \"udp\"\n", 7, "udp"),
            (
                "[[gates]]\nname = \"a\"\nkind = \"http\"\npat = \"/\"\n",
                8,
                "pat",
            ),
            (
                "[[gates]]\nname = \"home\"\nkind = \"http\"\n",
                6,
                "another gate",
            ),
            (
                "[[gates]]\nname = \"a\"\nkind = \"http\"\nstatus = [200,\n  99]\n",
                9,
                "99",
            ),
            (
                "[[gates]]\nname = \"a\"\nkind = \"http\"\nbody = \"/(/\"\n",
                8,
                "no pattern",
            ),
            (
                "[[gates]]\nname = \"a\"\nkind = \"http\"\ntimeout = \"2 weeks\"\n",
                8,
                "no time",
            ),
            (
                "[[gates]]\nname = \"a\"\nkind = \"http\"\n[gates.headers]\nHost = \"x\"\n",
                9,
                "key host",
            ),
            ("[[gates]]\nname = \"a\"\nkind = \"tcp\"\n", 5, "upstream"),
        ] {
            let errors = of(&format!("{good}{bad}")).compile().unwrap_err();
            let text = errors[0].to_string();
            assert!(text.starts_with(&format!("helix.toml:{line}: ")), "{text}");
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn commands_are_named_with_their_lines() {
        let rules = of(
            "[[gates]]\nname = \"a\"\nkind = \"http\"\n\n[[gates]]\nname = \"db\"\ncommand = [\"x\"]\nkind = \"exec\"\n",
        );
        assert!(rules.compile().is_ok());
        let refused = rules.refuse_commands();
        assert_eq!(refused.len(), 1);
        let text = refused[0].to_string();
        assert!(
            text.starts_with("helix.toml:8: ") && text.contains("gate db"),
            "{text}"
        );
        assert!(of("").refuse_commands().is_empty());
    }

    #[test]
    fn what_is_no_toml_is_refused_at_its_line() {
        for (text, line) in [("[static\n", 1), ("a = 1\nb = \n", 2), ("\n\n= 1", 3)] {
            assert_eq!(of(text).compile().unwrap_err()[0].line, line, "{text:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_at_their_line() {
        let error = Rules::default()
            .add(HEADERS, b"/a\n  x: y\n\xff".to_vec())
            .unwrap_err();
        assert_eq!(error.to_string(), "_headers:3: this line is not UTF-8");
        let huge = vec![b'#'; usize::try_from(MAX_FILE_BYTES).unwrap() + 1];
        assert!(Rules::default().add(REDIRECTS, huge).is_err());
    }

    #[test]
    fn a_key_is_found_where_it_stands() {
        let text = "a = 1\n[upstreams.api]\naddresses = [\"x\"]\n\n[[forward]]\npath = \"/a\"\n\n[[forward]]\npath = \"/b\"\n";
        for (key, line) in [
            ("a", 1),
            ("upstreams.api.addresses", 3),
            ("upstreams.api.addresses[0]", 3),
            ("upstreams.api.missing", 2),
            ("forward[1].path", 9),
            ("forward[1]", 8),
            ("nothing", 1),
        ] {
            assert_eq!(line_of(text, key), line, "{key}");
        }
    }
}
