//! What a scan is asked for, and the same bound to a table's schema.

use std::fmt;

use aurora_page::{Column, DataType, KeyPart, Schema};

use crate::expr::{BoundExpr, Expr, ExprError, Kind};

/// What is computed from the rows of a group. Nulls are left out by all but [`AggregateFunction::Len`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AggregateFunction {
    /// Rows.
    Len,
    /// Values that are not null.
    Count,
    /// The sum: exact for integers and decimals; of floats the exact sum, rounded once. Null without values.
    Sum,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// The mean, a float.
    Mean,
    /// Different values.
    CountDistinct,
    /// The sample variance, a float; null for fewer than two values.
    Variance,
    /// Its square root.
    StdDev,
    /// Roughly how many different values: within 2 % two times of three, in 4 KiB a group.
    ApproxDistinct,
    /// The value below which a share of the values lie, a float. Keeps all values.
    Quantile(Share, Interpolation),
    /// The same within 1 % of the value, whatever the number of values.
    ApproxQuantile(Share),
}

/// A number from 0 to 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Share(u64);

impl Share {
    /// `None` for what is not from 0 to 1.
    pub fn new(share: f64) -> Option<Share> {
        (0.0..=1.0)
            .contains(&share)
            .then_some(Share(share.to_bits()))
    }

    /// The number.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// What a quantile is that lies between two values; as in Polars.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Interpolation {
    /// The nearer of the two.
    #[default]
    Nearest,
    /// The smaller one.
    Lower,
    /// The larger one.
    Higher,
    /// Halfway between them.
    Midpoint,
    /// As far between them as it lies.
    Linear,
}

impl Interpolation {
    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Interpolation> {
        Some(match name {
            "nearest" => Interpolation::Nearest,
            "lower" => Interpolation::Lower,
            "higher" => Interpolation::Higher,
            "midpoint" => Interpolation::Midpoint,
            "linear" => Interpolation::Linear,
            _ => return None,
        })
    }
}

impl AggregateFunction {
    /// Its name in expressions.
    pub fn name(self) -> &'static str {
        match self {
            AggregateFunction::Len => "len",
            AggregateFunction::Count => "count",
            AggregateFunction::Sum => "sum",
            AggregateFunction::Min => "min",
            AggregateFunction::Max => "max",
            AggregateFunction::Mean => "mean",
            AggregateFunction::CountDistinct => "n_unique",
            AggregateFunction::Variance => "var",
            AggregateFunction::StdDev => "std",
            AggregateFunction::ApproxDistinct => "approx_n_unique",
            AggregateFunction::Quantile(..) => "quantile",
            AggregateFunction::ApproxQuantile(_) => "approx_quantile",
        }
    }

    /// The type of its result for values of a kind; `None` if it does not take them.
    fn result(self, of: &BoundExpr) -> Option<DataType> {
        let (kind, data_type) = (of.kind(), of.data_type()?);
        let is_number = matches!(kind, Kind::Int | Kind::Decimal { .. } | Kind::Float);
        match self {
            AggregateFunction::Len
            | AggregateFunction::Count
            | AggregateFunction::CountDistinct
            | AggregateFunction::ApproxDistinct => Some(DataType::Int64),
            AggregateFunction::Sum if is_number => kind.data_type(),
            AggregateFunction::Min | AggregateFunction::Max => {
                (kind != Kind::Json).then_some(data_type)
            }
            AggregateFunction::Mean
            | AggregateFunction::Variance
            | AggregateFunction::StdDev
            | AggregateFunction::Quantile(..)
            | AggregateFunction::ApproxQuantile(_) => is_number.then_some(DataType::Float64),
            AggregateFunction::Sum => None,
        }
    }
}

/// A function of the values of an expression.
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregate {
    /// The function.
    pub function: AggregateFunction,
    /// Of what; `None` for rows.
    pub of: Option<Expr>,
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = match self.function {
            AggregateFunction::Quantile(share, _) | AggregateFunction::ApproxQuantile(share) => {
                format!(", {}", share.get())
            }
            _ => String::new(),
        };
        match &self.of {
            Some(of) => write!(f, "{}({of}{share})", self.function.name()),
            None => write!(f, "{}()", self.function.name()),
        }
    }
}

/// What a scan gives.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// A row for each row that passes the filter.
    Rows(Vec<(String, Expr)>),
    /// A row for each group; one in all if there are no keys.
    Groups {
        /// What is equal within a group.
        keys: Vec<(String, Expr)>,
        /// What is computed from it.
        aggregates: Vec<(String, Aggregate)>,
    },
}

/// Filter, then output.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Which rows count: those for which all of these are true.
    pub filter: Vec<Expr>,
    /// What is made of them.
    pub output: Output,
}

/// One aggregate, bound.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct BoundAggregate {
    pub(crate) function: AggregateFunction,
    /// Index into the inputs.
    pub(crate) input: Option<usize>,
    pub(crate) data_type: DataType,
}

/// A plan over the rows of one schema.
#[derive(Clone, Debug)]
pub struct BoundPlan {
    pub(crate) schema: Schema,
    pub(crate) filter: Vec<BoundExpr>,
    /// Keys of groups, or what each row gives.
    pub(crate) keys: Vec<BoundExpr>,
    pub(crate) aggregates: Vec<BoundAggregate>,
    /// What aggregates read; each expression once.
    pub(crate) inputs: Vec<BoundExpr>,
    pub(crate) groups: bool,
    pub(crate) columns: Vec<usize>,
    output: Schema,
}

impl Plan {
    /// The plan over rows of a schema.
    ///
    /// # Errors
    /// Unknown columns, types that do not fit, names that come twice.
    pub fn bind(&self, schema: &Schema) -> Result<BoundPlan, ExprError> {
        let mut filter = Vec::new();
        for condition in &self.filter {
            let bound = condition.bind(schema)?;
            bound.expect_condition()?;
            filter.push(bound);
        }
        let (named, aggregates) = match &self.output {
            Output::Rows(columns) => (columns, &Vec::new()),
            Output::Groups { keys, aggregates } => (keys, aggregates),
        };
        let mut columns: Vec<(String, DataType)> = Vec::new();
        let mut keys = Vec::new();
        for (name, expr) in named {
            let bound = expr.bind(schema)?;
            let data_type = bound.data_type().ok_or_else(|| ExprError::Types {
                expression: expr.to_string(),
                expected: "a value of some type (cast it)".into(),
                got: "null".into(),
            })?;
            columns.push((name.clone(), data_type));
            keys.push(bound);
        }
        let (mut inputs, mut bound_aggregates) = (Vec::<BoundExpr>::new(), Vec::new());
        for (name, aggregate) in aggregates {
            let (input, data_type) = match &aggregate.of {
                None => (None, DataType::Int64),
                Some(of) => {
                    let bound = of.bind(schema)?;
                    let data_type =
                        aggregate
                            .function
                            .result(&bound)
                            .ok_or_else(|| ExprError::Types {
                                expression: aggregate.to_string(),
                                expected: format!(
                                    "values to take the {} of",
                                    aggregate.function.name()
                                ),
                                got: bound.kind().to_string(),
                            })?;
                    let known = inputs.iter().position(|input| input.root() == bound.root());
                    if known.is_none() {
                        inputs.push(bound);
                    }
                    (Some(known.unwrap_or(inputs.len() - 1)), data_type)
                }
            };
            columns.push((name.clone(), data_type));
            bound_aggregates.push(BoundAggregate {
                function: aggregate.function,
                input,
                data_type,
            });
        }
        let mut read: Vec<usize> = filter
            .iter()
            .chain(&keys)
            .chain(&inputs)
            .flat_map(|bound| bound.columns().iter().copied())
            .collect();
        read.sort_unstable();
        read.dedup();
        Ok(BoundPlan {
            schema: schema.clone(),
            filter,
            keys,
            aggregates: bound_aggregates,
            inputs,
            groups: matches!(self.output, Output::Groups { .. }),
            columns: read,
            output: output_schema(columns)?,
        })
    }
}

fn output_schema(columns: Vec<(String, DataType)>) -> Result<Schema, ExprError> {
    let columns = columns
        .into_iter()
        .zip(0..)
        .map(|((name, data_type), id)| Column {
            id,
            name,
            data_type,
            nullable: true,
        })
        .collect();
    // Results have no key; a schema has one.
    let key = vec![KeyPart {
        column: 0,
        descending: false,
    }];
    Schema::new(0, columns, key).map_err(|error| ExprError::Types {
        expression: "result".into(),
        expected: "columns of different names".into(),
        got: error.to_string(),
    })
}

impl BoundPlan {
    /// Columns of the result; each may be null, and the key means nothing.
    pub fn output(&self) -> &Schema {
        &self.output
    }

    /// Indexes of the table's columns that are read.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Whether groups are made.
    pub fn is_grouped(&self) -> bool {
        self.groups
    }

    /// The conditions, which all must be true.
    pub fn filter(&self) -> &[BoundExpr] {
        &self.filter
    }
}
