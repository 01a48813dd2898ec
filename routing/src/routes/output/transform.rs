//! What becomes of a response's fields at the end.
//!
//! Pure.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Operation, TransformKey};

/// A transform whose values are known.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) operation: Operation,
    pub(super) key: &'a TransformKey,
    pub(super) values: Vec<String>,
}

/// Changes `fields`.
pub(super) fn apply(change: &Change<'_>, fields: &mut Vec<(String, String)>) {
    match change.operation {
        Operation::Set => {
            for name in names(change.key) {
                fields.retain(|(held, _)| held != name);
                fields.push((name.clone(), change.values.join(", ")));
            }
        }
        Operation::Append => {
            for name in names(change.key) {
                let value = change.values.join(", ");
                match fields.iter_mut().find(|(held, _)| held == name) {
                    Some((_, held)) => *held = [held.as_str(), ", ", &value].concat(),
                    None => fields.push((name.clone(), value)),
                }
            }
        }
        Operation::Delete if change.values.is_empty() => {
            fields.retain(|(name, _)| !is_for(change.key, name));
        }
        Operation::Delete => {
            for (_, value) in fields
                .iter_mut()
                .filter(|(name, _)| is_for(change.key, name))
            {
                let kept = value.split(',').map(str::trim);
                let kept: Vec<&str> = kept
                    .filter(|one| !change.values.iter().any(|gone| gone == one))
                    .collect();
                *value = kept.join(", ");
            }
            fields.retain(|(name, value)| !value.is_empty() || !is_for(change.key, name));
        }
    }
}

fn names(key: &TransformKey) -> &[String] {
    match key {
        TransformKey::Names(names) => names,
        // Only names can be given a value: checked where routes are compiled.
        TransformKey::Prefix(_) | TransformKey::Suffix(_) => &[],
    }
}

fn is_for(key: &TransformKey, name: &str) -> bool {
    match key {
        TransformKey::Names(names) => names.iter().any(|one| one == name),
        TransformKey::Prefix(start) => name.starts_with(start.as_str()),
        TransformKey::Suffix(end) => name.ends_with(end.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;

    #[test]
    fn fields_are_set_added_to_and_taken_away() {
        let names = |name: &str| TransformKey::Names(Vec::from([name.to_owned()]));
        for (operation, key, values, expected) in [
            (
                Operation::Set,
                names("x-a"),
                &["2", "3"][..],
                "x-b=1, 2;x-a=2, 3",
            ),
            (Operation::Append, names("x-b"), &["3"], "x-a=1;x-b=1, 2, 3"),
            (
                Operation::Append,
                names("x-c"),
                &["3"],
                "x-a=1;x-b=1, 2;x-c=3",
            ),
            (Operation::Delete, names("x-a"), &[], "x-b=1, 2"),
            (Operation::Delete, names("x-b"), &["1"], "x-a=1;x-b=2"),
            (Operation::Delete, names("x-a"), &["1"], "x-b=1, 2"),
            (
                Operation::Delete,
                TransformKey::Prefix("x-".to_owned()),
                &[],
                "",
            ),
            (
                Operation::Delete,
                TransformKey::Suffix("-b".to_owned()),
                &[],
                "x-a=1",
            ),
        ] {
            let mut fields = Vec::from([
                ("x-a".to_owned(), "1".to_owned()),
                ("x-b".to_owned(), "1, 2".to_owned()),
            ]);
            let values = values.iter().map(|one| (*one).to_owned()).collect();
            apply(
                &Change {
                    operation,
                    key: &key,
                    values,
                },
                &mut fields,
            );
            let shown: Vec<String> = fields
                .iter()
                .map(|(name, value)| alloc::format!("{name}={value}"))
                .collect();
            assert_eq!(shown.join(";"), expected, "{operation:?} {key:?}");
        }
    }
}
