//! Statements whose number of values is known only when they run.
//!
//! The library's own builder writes `?` for a database of any kind, which PostgreSQL does not read.

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::{Query, QueryAs};
use sqlx::{Arguments, AssertSqlSafe, Encode, FromRow, Type};

use super::{Database, StoreError};

/// A statement in the making: text, and values that are numbered as they come.
#[derive(Default)]
pub struct Statement {
    sql: String,
    values: AnyArguments,
    // The first value that could not be bound; said when it is run.
    refused: Option<sqlx::error::BoxDynError>,
}

impl std::fmt::Debug for Statement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Statement({:?})", self.sql)
    }
}

impl Statement {
    /// One that begins so.
    #[must_use]
    pub fn new(sql: &'static str) -> Self {
        Self::default().text(sql)
    }

    /// Goes on with text. Only what is written in the source gets in: values are bound.
    #[must_use]
    pub fn text(mut self, sql: &'static str) -> Self {
        self.sql.push_str(sql);
        self
    }

    /// Goes on with a value.
    #[must_use]
    pub fn bind<'v, T: Encode<'v, Database> + Type<Database>>(mut self, value: T) -> Self {
        match self.values.add(value) {
            Ok(()) => {
                let number = self.values.len();
                self.sql.push_str(&format!("${number}"));
            }
            Err(refused) => self.refused = self.refused.or(Some(refused)),
        }
        self
    }

    /// Begins a row in parentheses, of [`Statement::value`]s, to its [`Statement::end`].
    #[must_use]
    pub fn row(self) -> Self {
        self.text("(")
    }

    /// Goes on with the next value of a row.
    #[must_use]
    pub fn value<'v, T: Encode<'v, Database> + Type<Database>>(self, value: T) -> Self {
        let statement = if self.sql.ends_with('(') {
            self
        } else {
            self.text(", ")
        };
        statement.bind(value)
    }

    /// Ends a row.
    #[must_use]
    pub fn end(self) -> Self {
        self.text(")")
    }

    /// Goes on with a list, whose items `each` writes: rows of `VALUES`, or what an `IN` chooses from.
    #[must_use]
    pub fn list<I>(
        self,
        items: impl IntoIterator<Item = I>,
        each: impl Fn(Self, I) -> Self,
    ) -> Self {
        let mut statement = self;
        let mut separator = "";
        for item in items {
            statement = each(statement.text(separator), item);
            separator = ", ";
        }
        statement
    }

    /// To be run for what it changes.
    ///
    /// # Errors
    /// When a value could not be bound.
    pub fn query(self) -> Result<Query<'static, Database, AnyArguments>, StoreError> {
        let (sql, values) = self.parts()?;
        Ok(sqlx::query_with(AssertSqlSafe(sql), values).persistent(false))
    }

    /// To be run for its rows.
    ///
    /// # Errors
    /// When a value could not be bound.
    pub fn rows<O>(self) -> Result<QueryAs<'static, Database, O, AnyArguments>, StoreError>
    where
        O: for<'r> FromRow<'r, AnyRow>,
    {
        let (sql, values) = self.parts()?;
        Ok(sqlx::query_as_with(AssertSqlSafe(sql), values).persistent(false))
    }

    fn parts(self) -> Result<(String, AnyArguments), StoreError> {
        match self.refused {
            Some(refused) => Err(sqlx::Error::Encode(refused).into()),
            None => Ok((self.sql, self.values)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbered_as_they_come() {
        let statement = Statement::new("INSERT INTO t (a, b) VALUES ")
            .list([("x", 1_i64), ("y", 2)], |row, (a, b)| {
                row.row().value(a).value(b).end()
            })
            .text(" ON CONFLICT DO NOTHING");
        assert_eq!(
            statement.parts().unwrap().0,
            "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4) ON CONFLICT DO NOTHING"
        );
    }
}
