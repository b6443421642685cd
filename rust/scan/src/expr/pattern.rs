//! Patterns of texts: regular expressions, and LIKE: `%` stands for any run of characters, `_` for one, and a backslash before
//! either for itself.

use regex::{Regex, RegexBuilder};

/// Bytes that a regular expression may take once it is compiled: `\\w{1000}{1000}` is refused, and does not eat the memory.
const REGEX_BYTES_MAX: usize = 4 << 20;

/// A regular expression that many texts are searched with: in time linear in the text, whatever the expression.
#[derive(Clone, Debug)]
pub struct RegexPattern(Regex);

impl PartialEq for RegexPattern {
    fn eq(&self, other: &RegexPattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl RegexPattern {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(pattern: &str) -> Result<RegexPattern, String> {
        let compiled = RegexBuilder::new(pattern)
            .size_limit(REGEX_BYTES_MAX)
            .build();
        compiled.map(RegexPattern).map_err(|error| match error {
            regex::Error::CompiledTooBig(bytes) => {
                format!("one of more than {bytes} bytes, compiled")
            }
            // Several lines: the expression, a mark below what is wrong, and then what is.
            other => other
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .replace("error: ", ""),
        })
    }

    /// Whether it is found in a text.
    pub(super) fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// A pattern that many texts are held against.
#[derive(Clone, Debug)]
pub(crate) struct LikePattern {
    whole: String,
    /// What lies between the `%`, if there is nothing else special: the first begins the text, the last ends it.
    parts: Option<Vec<String>>,
}

impl LikePattern {
    pub(crate) fn new(pattern: &str) -> LikePattern {
        let plain = !pattern.contains(['_', '\\']);
        LikePattern {
            whole: pattern.to_owned(),
            parts: plain.then(|| pattern.split('%').map(str::to_owned).collect()),
        }
    }

    /// Whether a text is like it, from end to end.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let Some(parts) = &self.parts else {
            return is_like(text, &self.whole);
        };
        let [first, middle @ .., last] = &parts[..] else {
            return text == self.whole;
        };
        let rest = text.strip_prefix(first.as_str());
        let Some(mut rest) = rest.and_then(|rest| rest.strip_suffix(last.as_str())) else {
            return false;
        };
        for part in middle {
            match rest.find(part.as_str()) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

/// Whether a text is like a pattern, from end to end.
pub(crate) fn is_like(text: &str, pattern: &str) -> bool {
    let (mut text_at, mut pattern_at) = (0, 0);
    // Where to go on when what follows the last `%` does not match: one character later.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let wanted = next_of(pattern, pattern_at);
        let found = text[text_at..].chars().next();
        match (wanted, found) {
            (Some((Wanted::Any, next)), _) => {
                retry = Some((text_at, next));
                pattern_at = next;
            }
            (None, None) => return true,
            (Some((Wanted::One, next)), Some(c)) => {
                (text_at, pattern_at) = (text_at + c.len_utf8(), next);
            }
            (Some((Wanted::Char(wanted), next)), Some(c)) if wanted == c => {
                (text_at, pattern_at) = (text_at + c.len_utf8(), next);
            }
            _ => {
                let Some((from, after)) = retry else {
                    return false;
                };
                let Some(c) = text[from..].chars().next() else {
                    return false;
                };
                retry = Some((from + c.len_utf8(), after));
                (text_at, pattern_at) = (from + c.len_utf8(), after);
            }
        }
    }
}

enum Wanted {
    Any,
    One,
    Char(char),
}

/// What the pattern wants at a place, and where it goes on.
fn next_of(pattern: &str, at: usize) -> Option<(Wanted, usize)> {
    let mut chars = pattern[at..].chars();
    let first = chars.next()?;
    let next = at + first.len_utf8();
    Some(match first {
        '%' => (Wanted::Any, next),
        '_' => (Wanted::One, next),
        '\\' => match chars.next() {
            Some(escaped) => (Wanted::Char(escaped), next + escaped.len_utf8()),
            None => (Wanted::Char('\\'), next),
        },
        other => (Wanted::Char(other), next),
    })
}

#[cfg(test)]
mod tests {
    use super::{LikePattern, is_like};

    #[test]
    fn patterns() {
        for (text, pattern, expected) in [
            ("", "", true),
            ("", "%", true),
            ("", "_", false),
            ("abc", "abc", true),
            ("abc", "ab", false),
            ("abc", "a%", true),
            ("abc", "%c", true),
            ("abc", "%b%", true),
            ("abc", "a_c", true),
            ("abc", "___", true),
            ("abc", "____", false),
            ("aab", "%ab", true),
            ("mississippi", "m%iss%pi", true),
            ("mississippi", "m%iss%ps", false),
            ("50%", "50\\%", true),
            ("500", "50\\%", false),
            ("a\\", "a\\", true),
            ("aba", "ab%ba", false),
            ("abba", "ab%ba", true),
            ("xaab", "%a%ab", true),
            ("xab", "%a%ab", false),
            ("aé漢x", "_é漢%", true),
            ("é", "__", false),
        ] {
            assert_eq!(
                is_like(text, pattern),
                expected,
                "{text:?} LIKE {pattern:?}"
            );
            assert_eq!(LikePattern::new(pattern).matches(text), expected);
        }
    }
}
