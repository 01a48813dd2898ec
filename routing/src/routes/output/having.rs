//! What is written of conditions, and of names that transforms are for.
//!
//! Pure.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::headers;
use super::condition::ReadyCondition;
use super::texts::{check_count, shown};
use super::written::{
    MAX_OF_ONE, MAX_TEMPLATE_BYTES, Operators, Scalar, WrittenCondition, WrittenConditionValue,
};
use super::{Condition, Subject, Test, TransformKey};

pub(super) fn conditions(
    key: &str,
    written: &[WrittenCondition],
) -> Result<Vec<Condition>, String> {
    check_count(key, written.len(), MAX_OF_ONE)?;
    let compiled = written.iter().enumerate().map(|(at, one)| {
        let condition =
            condition(one).and_then(|condition| ReadyCondition::new(&condition).map(|_| condition));
        condition.map_err(|wrong| format!("{key}[{at}]: {wrong}"))
    });
    compiled.collect()
}

fn condition(written: &WrittenCondition) -> Result<Condition, String> {
    let key = || {
        let key = written
            .key
            .clone()
            .filter(|key| !key.is_empty() && key.len() <= MAX_TEMPLATE_BYTES);
        key.ok_or_else(|| "key: is missing".to_owned())
    };
    let of = match written.kind.as_str() {
        "host" => Subject::Host,
        "header" => Subject::Header(key()?.to_ascii_lowercase()),
        "cookie" => Subject::Cookie(key()?),
        "query" => Subject::Query(key()?),
        other => {
            return Err(format!(
                "type: `{}` is none of `host`, `header`, `cookie` and `query`",
                shown(other)
            ));
        }
    };
    let tests = match &written.value {
        None if of == Subject::Host => return Err("value: is missing".to_owned()),
        None => Vec::new(),
        Some(WrittenConditionValue::Pattern(pattern)) => Vec::from([Test::Fits(pattern.clone())]),
        Some(WrittenConditionValue::Operators(operators)) => tests(operators)?,
    };
    Ok(Condition { of, tests })
}

fn tests(operators: &Operators) -> Result<Vec<Test>, String> {
    let text = |scalar: &Scalar| match scalar {
        Scalar::Text(text) => text.clone(),
        Scalar::Number(number) => number.to_string(),
    };
    let list = |all: &Vec<Scalar>| all.iter().map(text).collect::<Vec<String>>();
    let mut tests = Vec::new();
    tests.extend(operators.eq.as_ref().map(|one| Test::Is(text(one))));
    tests.extend(operators.neq.as_ref().map(|one| Test::IsNot(text(one))));
    tests.extend(operators.inc.as_ref().map(|all| Test::In(list(all))));
    tests.extend(operators.ninc.as_ref().map(|all| Test::NotIn(list(all))));
    tests.extend(operators.pre.clone().map(Test::Prefix));
    tests.extend(operators.suf.clone().map(Test::Suffix));
    tests.extend(operators.re.clone().map(Test::Fits));
    tests.extend(operators.gt.map(Test::Above));
    tests.extend(operators.gte.map(Test::AtLeast));
    tests.extend(operators.lt.map(Test::Below));
    tests.extend(operators.lte.map(Test::AtMost));
    if tests.is_empty() {
        return Err("value: has no operator".to_owned());
    }
    Ok(tests)
}

pub(super) fn transform_key(written: &WrittenConditionValue) -> Result<TransformKey, String> {
    let known =
        |name: &String| headers::known(name).map_err(|wrong| format!("target.key: {wrong}"));
    let none = || "target.key: has to be a name, or one of `eq`, `inc`, `pre` and `suf`".to_owned();
    match written {
        WrittenConditionValue::Pattern(name) => Ok(TransformKey::Names(Vec::from([known(name)?]))),
        WrittenConditionValue::Operators(operators) => {
            let only = Operators::default();
            if let Some(Scalar::Text(name)) = &operators.eq {
                return Ok(TransformKey::Names(Vec::from([known(name)?])));
            }
            if let Some(all) = &operators.inc {
                let names = all.iter().map(|one| match one {
                    Scalar::Text(name) => known(name),
                    Scalar::Number(_) => Err(none()),
                });
                return names.collect::<Result<_, _>>().map(TransformKey::Names);
            }
            if let Some(start) = &operators.pre
                && **operators
                    == (Operators {
                        pre: operators.pre.clone(),
                        ..only.clone()
                    })
            {
                return Ok(TransformKey::Prefix(start.to_ascii_lowercase()));
            }
            if let Some(end) = &operators.suf
                && **operators
                    == (Operators {
                        suf: operators.suf.clone(),
                        ..only
                    })
            {
                return Ok(TransformKey::Suffix(end.to_ascii_lowercase()));
            }
            Err(none())
        }
    }
}
