//! Texts of routes that become URLs and fields: what they may hold, and how they are shown when they may not.
//!
//! Pure.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use super::Condition;
use super::condition::ReadyCondition;
use super::written::MAX_TEMPLATE_BYTES;

/// Scheme, authority and the rest of a URL of a website.
pub(super) fn split_url(url: &str) -> Option<(&'static str, &str, &str)> {
    let scheme = ["http", "https"].into_iter().find(|scheme| {
        url.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            && url[scheme.len()..].starts_with("://")
    })?;
    let rest = &url[scheme.len() + "://".len()..];
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    Some((scheme, authority, path))
}

/// A host may hold what was found in the request's own host, and nothing else of a request.
pub(super) fn check_authority(authority: &str, has: &[Condition]) -> Result<(), String> {
    if authority.is_empty() || authority.contains(['@', '\\']) {
        return Err("names no host".to_owned());
    }
    let hosts: Vec<ReadyCondition> = has
        .iter()
        .filter_map(|one| ReadyCondition::new(one).ok())
        .collect();
    let of_host = |name: &str| {
        hosts
            .iter()
            .any(|one| one.is_of_host() && one.names().any(|known| known == name))
    };
    for place in authority.split('$').skip(1) {
        let end = place
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(place.len());
        if place[..end] != *"wildcard" && !of_host(&place[..end]) {
            return Err(format!(
                "`${}` in its host is nothing that a condition on the host finds: anybody could send clients anywhere",
                &place[..end]
            ));
        }
    }
    Ok(())
}

pub(super) fn check_template(text: &str) -> Result<(), String> {
    if text.len() > MAX_TEMPLATE_BYTES {
        return Err(format!("is longer than {MAX_TEMPLATE_BYTES} bytes"));
    }
    if text.bytes().any(|byte| byte.is_ascii_control()) || text.contains('\\') {
        return Err("holds a control character or a backslash".to_owned());
    }
    Ok(())
}

pub(super) fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// As a URL has it: what is not ASCII is escaped.
pub(super) fn in_ascii(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii() {
            ascii.push(char::from(byte));
        } else {
            write!(ascii, "%{byte:02X}").expect("a string takes everything");
        }
    }
    ascii
}

/// The same of what becomes a target: nothing in it ends the line that it stands in.
pub(super) fn as_url(text: &str) -> String {
    in_ascii(text).replace(' ', "%20")
}

pub(super) fn check_count(key: &str, count: usize, most: usize) -> Result<(), String> {
    if count > most {
        return Err(format!("{key}: has {count} entries; {most} are possible"));
    }
    Ok(())
}

pub(super) fn shown(text: &str) -> String {
    text.chars()
        .take(60)
        .flat_map(char::escape_default)
        .collect()
}
