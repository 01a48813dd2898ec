//! From the file a request means to its answer.

use std::sync::Arc;

use helix_framing::Fields;
use helix_framing::conditions::{Verdict, evaluate, range_applies};
use helix_framing::ranges::{Multipart, Part, Wanted, content_range, wanted};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, VARY,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::digest::{REPR_DIGEST, repr_digest};
use super::{choose, goes_beside};
use crate::answer::{Answer, NO_STORE, RequestHead, Response};
use crate::release::{File, Representation};

/// Kept by caches, but asked about each time, so that a cutover is seen at once.
const REVALIDATE: HeaderValue = HeaderValue::from_static("public, max-age=0, must-revalidate");
/// The name tells the bytes, so they never change.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const BY_ENCODING: HeaderValue = HeaderValue::from_static("accept-encoding");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");

/// A file, or a part of it, to be sent.
#[derive(Debug)]
pub struct StaticFile {
    /// The file, of the pinned release.
    pub file: Arc<File>,
    /// Which of its representations.
    pub representation: usize,
    /// Which part of that.
    pub part: Part,
    /// 200 or 206; 404 or 410 for a page that says there is nothing.
    pub status: StatusCode,
    /// Fields that rules ask for, and what else the answer depends on. They win over those of the file.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// Whether nobody may keep it: a page in the place of a file that would be kept for ever.
    pub transient: bool,
}

impl StaticFile {
    /// What is sent, wholly or in part.
    #[must_use]
    pub fn chosen(&self) -> &Representation {
        self.file
            .representations
            .get(self.representation)
            .unwrap_or_else(|| self.file.identity())
    }

    /// Bytes that are sent.
    #[must_use]
    pub fn length(&self) -> u64 {
        match &self.part {
            Part::Whole => self.chosen().size(),
            Part::One(range) => range.end - range.start,
            Part::Many(multipart) => multipart.length(),
        }
    }

    /// Its fields, beyond those of the protocol and of the pinned release.
    #[must_use]
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let chosen = self.chosen();
        let mut headers = Vec::with_capacity(8 + self.fields.len());
        headers.push((CONTENT_TYPE, self.file.content_type.clone()));
        headers.push((CACHE_CONTROL, self.cache_control()));
        if let Some(encoding) = chosen.encoding {
            headers.push((CONTENT_ENCODING, HeaderValue::from_static(encoding.name())));
        }
        // A page that says there is nothing is no representation of what was asked for.
        if self.status.is_success() {
            headers.push((ETAG, chosen.etag.clone()));
            headers.extend(
                self.file
                    .last_modified
                    .clone()
                    .map(|date| (LAST_MODIFIED, date)),
            );
            headers.push((ACCEPT_RANGES, BYTES));
        }
        if self.varies() {
            headers.push((VARY, BY_ENCODING));
        }
        add(&mut headers, &self.fields, !self.status.is_success());
        match &self.part {
            Part::Whole => {}
            Part::One(range) => headers.push((CONTENT_RANGE, content_range(range, chosen.size()))),
            Part::Many(multipart) => headers[0].1 = multipart.content_type.clone(),
        }
        headers
    }

    /// Whether other clients could get other bytes.
    fn varies(&self) -> bool {
        self.file.representations.len() > 1
    }

    fn cache_control(&self) -> HeaderValue {
        if self.transient {
            NO_STORE
        } else if self.status.is_success() && self.file.immutable {
            IMMUTABLE
        } else {
            REVALIDATE
        }
    }
}

/// Puts rules' fields over the file's own. What tells of a file says nothing of its absence.
fn add(
    headers: &mut Vec<(HeaderName, HeaderValue)>,
    fields: &[(HeaderName, HeaderValue)],
    absent: bool,
) {
    for (name, value) in fields {
        if absent && !goes_beside(name) {
            continue;
        }
        let held = headers.iter_mut().find(|(held, _)| held == name);
        match held.filter(|(held, _)| *held != VARY) {
            Some((_, held)) => *held = value.clone(),
            None => headers.push((name.clone(), value.clone())),
        }
    }
}

/// Answers with `file` under `status`, as far as the request's conditions and ranges let it.
#[must_use]
pub fn serve(
    file: &Arc<File>,
    status: StatusCode,
    head: &RequestHead<'_>,
    fields: Vec<(HeaderName, HeaderValue)>,
) -> (Answer, Option<&'static str>) {
    // Encoded bytes are other bytes, and whoever wrote the rule wants these.
    let representation = if forbids_transform(&fields) {
        0
    } else {
        choose(&file.representations, head.fields)
    };
    let mut served = StaticFile {
        file: Arc::clone(file),
        representation,
        part: Part::Whole,
        status,
        fields,
        transient: false,
    };
    if let Some(digest) = repr_digest(head.fields, &served.chosen().entry.digest) {
        served.fields.push((REPR_DIGEST.clone(), digest));
    }
    // Conditions count only where the answer would be a success (RFC 9110 13.2.1).
    if status != StatusCode::OK || !has_conditions(head.fields) {
        return (Answer::Static(served), None);
    }
    let etag = served.chosen().etag.clone();
    match evaluate(head.fields, &etag, file.modified) {
        Verdict::Proceed => {}
        Verdict::NotModified => return (not_modified(&served), Some("the client has it already")),
        Verdict::Failed => {
            let text = "the file is not what the request's conditions say\n";
            let mut response =
                Response::text(StatusCode::PRECONDITION_FAILED, text).with(ETAG, etag);
            if served.varies() {
                response = response.with(VARY, BY_ENCODING);
            }
            return (
                Answer::Respond(response),
                Some("a condition of the request does not hold"),
            );
        }
    }
    if *head.method != Method::GET || !range_applies(head.fields, &etag, file.modified) {
        return (Answer::Static(served), None);
    }
    let mut ranges = head.fields.all(&RANGE);
    let size = served.chosen().size();
    match (ranges.next(), ranges.next()) {
        (Some(value), None) => match wanted(value, size) {
            Wanted::Whole => (Answer::Static(served), None),
            Wanted::Unsatisfiable => (
                unsatisfiable(&served, size),
                Some("the range lies behind the end"),
            ),
            // Would the coding be that of the parts or of what holds them? Clients do not agree, so they get all.
            Wanted::Ranges(ranges) if ranges.len() > 1 && served.chosen().encoding.is_some() => (
                Answer::Static(served),
                Some("several ranges of an encoded file"),
            ),
            Wanted::Ranges(mut ranges) => {
                served.part = match ranges.len() {
                    1 => Part::One(ranges.remove(0)),
                    _ => {
                        let kind = &file.content_type;
                        Part::Many(Box::new(Multipart::new(ranges, size, kind, &etag)))
                    }
                };
                served.status = StatusCode::PARTIAL_CONTENT;
                (Answer::Static(served), Some("part of a file"))
            }
        },
        _ => (Answer::Static(served), None),
    }
}

fn forbids_transform(fields: &[(HeaderName, HeaderValue)]) -> bool {
    fields
        .iter()
        .filter(|(name, _)| *name == CACHE_CONTROL)
        .flat_map(|(_, value)| value.as_bytes().split(|byte| *byte == b','))
        .any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Whether anything is asked beyond the file: most requests ask nothing, and are spared the questions.
fn has_conditions(fields: Fields<'_>) -> bool {
    [
        IF_NONE_MATCH,
        RANGE,
        IF_MODIFIED_SINCE,
        IF_MATCH,
        IF_UNMODIFIED_SINCE,
    ]
    .iter()
    .any(|name| fields.first(name).is_some())
}

/// With the fields that the 200 would have carried, but for those that tell of its content (RFC 9110 15.4.5).
fn not_modified(served: &StaticFile) -> Answer {
    let mut headers = served.headers();
    headers.retain(|(name, _)| {
        ![CONTENT_TYPE, CONTENT_ENCODING, LAST_MODIFIED, ACCEPT_RANGES].contains(name)
    });
    Answer::Respond(Response {
        status: StatusCode::NOT_MODIFIED,
        headers,
        body: None,
    })
}

fn unsatisfiable(served: &StaticFile, size: u64) -> Answer {
    let range = HeaderValue::try_from(format!("bytes */{size}")).expect("numbers are ASCII");
    let text = "the file has no such range\n";
    let mut response = Response::text(StatusCode::RANGE_NOT_SATISFIABLE, text)
        .with(CONTENT_RANGE, range)
        .with(ACCEPT_RANGES, BYTES);
    if served.varies() {
        response = response.with(VARY, BY_ENCODING);
    }
    Answer::Respond(response)
}
