//! Expressions: what they give for a row, what is refused, and their way through bytes.

#[path = "../../page/tests/typed/mod.rs"]
mod typed;

use std::sync::Arc;

use aurora_page::{
    Column, DataType, KeyPart, OverflowRef, PageId, Schema, TIME_US_END, Value, ValueRef,
};
use aurora_scan::expr::{
    Arithmetic, ColumnName, Comparison, Datum, EvalError, Expr, ExprError, Function, Literal,
};
use proptest::prelude::*;

fn schema() -> Schema {
    let column = |id: u16, name: &str, data_type| Column {
        id,
        name: name.into(),
        data_type,
        nullable: true,
    };
    let money = DataType::Decimal {
        precision: 12,
        scale: 2,
    };
    let columns = vec![
        column(7, "n", DataType::Int32),
        column(3, "price", money),
        column(5, "ratio", DataType::Float64),
        column(9, "name", DataType::Text),
        column(1, "day", DataType::Date),
        column(2, "ok", DataType::Bool),
        column(4, "doc", DataType::Json),
    ];
    let key = vec![KeyPart {
        column: 0,
        descending: false,
    }];
    Schema::new(1, columns, key).unwrap()
}

fn row() -> Vec<Value> {
    vec![
        Value::Int(10),
        Value::Decimal(1999),
        Value::Float64(0.5),
        Value::Text("Nut".into()),
        Value::Date(18_321),
        Value::Null,
        Value::Json("{}".into()),
    ]
}

fn col(name: &str) -> Expr {
    Expr::column(name)
}

fn number(unscaled: i128, scale: u8) -> Expr {
    Expr::Literal(Literal::Exact { unscaled, scale })
}

fn evaluate(expr: &Expr) -> Result<Datum<'static>, EvalError> {
    let row = row();
    let bound = expr
        .bind(&schema())
        .unwrap_or_else(|error| panic!("{error}"));
    bound
        .evaluate(&|column| row[column].as_ref())
        .map(Datum::into_owned)
}

fn case(branches: Vec<(Expr, Expr)>, otherwise: Option<Expr>) -> Expr {
    Expr::Case(branches.into(), otherwise.map(Arc::new))
}

fn call(function: Function, arguments: impl Into<Vec<Expr>>) -> Expr {
    Expr::Call(function, arguments.into().into())
}

#[test]
fn values_of_a_row() {
    use Arithmetic::{Add, Div, FloorDiv, Mod, Mul, Sub};
    let float = |v| Expr::Literal(Literal::Float(v));
    let null = || Expr::Literal(Literal::Null);
    let cases = [
        (col("n").arithmetic(Add, Expr::int(5)), Datum::Exact(15)),
        (col("n").arithmetic(Div, Expr::int(4)), Datum::Float(2.5)),
        (
            col("n").arithmetic(FloorDiv, Expr::int(-3)),
            Datum::Exact(-4),
        ),
        (col("n").arithmetic(Mod, Expr::int(-3)), Datum::Exact(-2)),
        (
            col("price").arithmetic(Mul, number(105, 2)),
            Datum::Exact(209_895),
        ),
        (
            col("price").arithmetic(Sub, Expr::int(1)),
            Datum::Exact(1899),
        ),
        (
            Expr::Round(Arc::new(col("price").arithmetic(Mul, number(105, 2))), 2),
            Datum::Exact(2099),
        ),
        (
            col("ratio").arithmetic(Add, Expr::int(1)),
            Datum::Float(1.5),
        ),
        (
            col("name").arithmetic(Add, Expr::text("s")),
            Datum::Text("Nuts".into()),
        ),
        (col("n").arithmetic(Add, null()), Datum::Null),
        (
            col("day").arithmetic(Sub, Expr::Literal(Literal::Date(18_300))),
            Datum::Exact(21),
        ),
        (
            col("day").arithmetic(Add, Expr::int(1)),
            Datum::Date(18_322),
        ),
        (Expr::Negate(Arc::new(col("price"))), Datum::Exact(-1999)),
        (
            Expr::Coalesce([null(), col("ok"), Expr::Literal(Literal::Bool(true))].into()),
            Datum::Bool(true),
        ),
        (
            Expr::Coalesce([col("n"), number(5, 1)].into()),
            Datum::Exact(100),
        ),
        (
            case(vec![(col("ok"), Expr::int(1))], Some(Expr::int(2))),
            Datum::Exact(2),
        ),
        (case(vec![(col("ok"), Expr::int(1))], None), Datum::Null),
        (
            Expr::Cast(Arc::new(col("price")), DataType::Int32),
            Datum::Exact(19),
        ),
        (
            Expr::Cast(Arc::new(col("price")), DataType::Float64),
            Datum::Float(19.99),
        ),
        (
            Expr::Cast(Arc::new(col("price")), DataType::Text),
            Datum::Text("19.99".into()),
        ),
        (
            Expr::Cast(Arc::new(Expr::text(" 42 ")), DataType::Int64),
            Datum::Exact(42),
        ),
        (
            Expr::Cast(Arc::new(Expr::text("2020-02-29")), DataType::Date),
            Datum::Date(18_321),
        ),
        (
            Expr::Cast(Arc::new(col("day")), DataType::Text),
            Datum::Text("2020-02-29".into()),
        ),
        (call(Function::Year, [col("day")]), Datum::Exact(2020)),
        (call(Function::Weekday, [col("day")]), Datum::Exact(6)),
        (call(Function::Quarter, [col("day")]), Datum::Exact(1)),
        (
            call(Function::Lower, [col("name")]),
            Datum::Text("nut".into()),
        ),
        (
            call(Function::Ilike, [col("name"), Expr::text("n%T")]),
            Datum::Bool(true),
        ),
        (
            call(Function::StartsWith, [col("name"), Expr::text("nu")]),
            Datum::Bool(false),
        ),
        (call(Function::Length, [col("name")]), Datum::Exact(3)),
        (
            float(2.5).arithmetic(FloorDiv, float(-1.0)),
            Datum::Float(-3.0),
        ),
    ];
    for (expr, expected) in cases {
        assert_eq!(evaluate(&expr), Ok(expected), "{expr}");
    }
}

#[test]
fn logic_has_three_values() {
    let (yes, no, unknown) = (
        Expr::Literal(Literal::Bool(true)),
        Expr::Literal(Literal::Bool(false)),
        col("ok"),
    );
    let value = |expr: &Expr| match evaluate(expr).unwrap() {
        Datum::Bool(v) => Some(v),
        Datum::Null => None,
        other => panic!("{other:?}"),
    };
    let all = [yes, no, unknown];
    for left in &all {
        for right in &all {
            let (a, b) = (value(left), value(right));
            let and = if a == Some(false) || b == Some(false) {
                Some(false)
            } else {
                a.and(b)
            };
            let or = if a == Some(true) || b == Some(true) {
                Some(true)
            } else if a.is_none() || b.is_none() {
                None
            } else {
                Some(false)
            };
            assert_eq!(value(&left.clone().and(right.clone())), and);
            assert_eq!(value(&left.clone().or(right.clone())), or);
        }
        assert_eq!(
            value(&Expr::Not(Arc::new(left.clone()))),
            value(left).map(|v| !v)
        );
    }
    let exact = |unscaled, scale| Literal::Exact { unscaled, scale };
    let is_in = |expr: Expr, list: Vec<Literal>| Expr::In(Arc::new(expr), list.into());
    assert_eq!(
        value(&is_in(col("n"), vec![exact(3, 0), exact(100, 1)])),
        Some(true)
    );
    assert_eq!(value(&is_in(col("n"), vec![exact(101, 1)])), Some(false));
    assert_eq!(
        value(&is_in(col("n"), vec![exact(3, 0), Literal::Null])),
        None
    );
    assert_eq!(value(&is_in(col("ok"), vec![Literal::Bool(true)])), None);
    assert_eq!(value(&Expr::IsNull(Arc::new(col("ok")))), Some(true));
    assert_eq!(
        value(&col("price").compare(Comparison::Ge, number(19_990, 3))),
        Some(true)
    );
    assert_eq!(
        value(&col("price").compare(Comparison::Lt, number(199_901, 4))),
        Some(true)
    );
}

#[test]
fn what_is_not_needed_cannot_fail() {
    let broken = || Expr::int(1).arithmetic(Arithmetic::Div, Expr::int(0));
    assert_eq!(evaluate(&broken()), Err(EvalError::DivisionByZero));
    let small = col("n").compare(Comparison::Lt, Expr::int(5));
    let fails = broken().compare(Comparison::Gt, Expr::int(0));
    assert_eq!(
        evaluate(&small.clone().and(fails.clone())),
        Ok(Datum::Bool(false))
    );
    let big = Expr::Not(Arc::new(small.clone()));
    assert_eq!(evaluate(&big.or(fails)), Ok(Datum::Bool(true)));
    let guarded = case(
        vec![(small, broken())],
        Some(Expr::Literal(Literal::Float(1.0))),
    );
    assert_eq!(evaluate(&guarded), Ok(Datum::Float(1.0)));
}

#[test]
fn types_are_checked_before_any_row() {
    let float = Expr::Literal(Literal::Float(0.5));
    for (expr, expected) in [
        (
            col("nowhere"),
            "expected a column among n, price, ratio, name, day, ok, doc, got \"nowhere\"",
        ),
        (
            col("price").arithmetic(Arithmetic::Add, float.clone()),
            "numbers of one kind to add, got decimal and float",
        ),
        (
            col("price").compare(Comparison::Lt, float),
            "write the number as a Decimal",
        ),
        (
            col("price").arithmetic(Arithmetic::Div, Expr::int(2)),
            "an exact quotient of decimals may not exist",
        ),
        (
            col("name").compare(Comparison::Eq, Expr::int(5)),
            "values of one type to compare, got text and int",
        ),
        (
            col("n").and(col("ok")),
            "expected a condition (bool), got int",
        ),
        (
            col("doc").compare(Comparison::Eq, Expr::text("{}")),
            "values of one type",
        ),
        (
            call(Function::Year, [col("n")]),
            "expected a date or timestamp, got int",
        ),
        (
            Expr::Cast(Arc::new(col("ok")), DataType::Date),
            "expected a value that can be made date, got bool",
        ),
        (
            Expr::In(Arc::new(col("n")), [Literal::Text("x".into())].into()),
            "a list of values of one type",
        ),
    ] {
        let error = expr.bind(&schema()).expect_err("it is refused").to_string();
        assert!(error.contains(expected), "{error}\n{expected}");
    }
    let mut deep = col("n");
    for _ in 0..300 {
        deep = Expr::Negate(Arc::new(deep));
    }
    assert!(matches!(
        deep.bind(&schema()),
        Err(ExprError::TooDeep {
            expected: 200,
            got: 301
        })
    ));
    assert!(Expr::decode(&deep.encode()).is_err());
}

#[test]
fn results_are_held_against_their_column() {
    let row = row();
    let store = |expr: Expr, column: usize| {
        let schema = schema();
        let bound = expr.bind(&schema).unwrap();
        let column = &schema.columns()[column];
        bound
            .expect_assignable(column)
            .map_err(|error| error.to_string())?;
        bound
            .value_for(column, &|index| row[index].as_ref())
            .map_err(|error| error.to_string())
    };
    let times = |unscaled, scale| col("price").arithmetic(Arithmetic::Mul, number(unscaled, scale));
    assert_eq!(store(times(2, 0), 1), Ok(Value::Decimal(3998)));
    assert_eq!(store(times(200, 2), 1), Ok(Value::Decimal(3998)));
    assert!(
        store(times(105, 2), 1)
            .unwrap_err()
            .contains("round it where that is meant")
    );
    assert!(
        store(times(1_000_000_000, 0), 1)
            .unwrap_err()
            .contains("more digits than the column has")
    );
    let big = col("n").arithmetic(Arithmetic::Mul, Expr::int(1 << 40));
    assert!(
        store(big.clone(), 0)
            .unwrap_err()
            .contains("a result that fits int32, got an int outside its range")
    );
    assert_eq!(
        store(big, 2),
        Ok(Value::Float64(
            10.0 * f64::from(1u32 << 20) * f64::from(1u32 << 20)
        ))
    );
    assert!(
        store(col("ratio"), 0)
            .unwrap_err()
            .contains("expected int32, got float")
    );
    assert_eq!(store(Expr::Literal(Literal::Null), 0), Ok(Value::Null));
}

#[test]
fn values_outside_of_the_row_are_asked_for() {
    let reference = OverflowRef {
        first: PageId(9),
        len: 70_000,
    };
    let schema = schema();
    let row = |column: usize| match column {
        3 => ValueRef::Overflow(reference),
        _ => ValueRef::Null,
    };
    let expr = col("name").compare(Comparison::Eq, Expr::text("x"));
    let expected = EvalError::LongValue {
        column: 3,
        reference,
    };
    assert_eq!(expr.bind(&schema).unwrap().test(&row), Err(expected));
    let is_null = Expr::IsNull(Arc::new(col("name")));
    assert_eq!(is_null.bind(&schema).unwrap().test(&row), Ok(Some(false)));
}

#[test]
fn columns_by_id_survive_a_rename() {
    let schema = schema();
    let expr = col("price").compare(Comparison::Gt, col("n"));
    let stored = expr.with_ids(&schema).unwrap();
    assert_eq!(stored.to_string(), "(#3 > #7)");
    let mut columns = schema.columns().to_vec();
    columns[1].name = "unit price".into();
    let renamed = Schema::new(2, columns, schema.key().to_vec()).unwrap();
    assert_eq!(
        stored.with_names(&renamed).to_string(),
        "(\"unit price\" > n)"
    );
    assert_eq!(stored.bind(&renamed).unwrap().columns(), [0, 1]);
    assert!(col("price").with_ids(&renamed).is_err());
    assert!(expr.mentions("price") && !expr.mentions("ratio"));
}

#[test]
fn texts() {
    let expr = case(
        vec![(
            Expr::Not(Arc::new(Expr::IsNull(Arc::new(col("name"))))).and(Expr::In(
                Arc::new(col("n")),
                (0..12)
                    .map(|n| Literal::Exact {
                        unscaled: n,
                        scale: 0,
                    })
                    .collect(),
            )),
            Expr::Round(Arc::new(col("price")), 1),
        )],
        Some(Expr::Cast(Arc::new(Expr::text("it's")), DataType::Int64)),
    );
    assert_eq!(
        expr.to_string(),
        "CASE WHEN ((name IS NOT NULL) AND (n IN (0, 1, 2, 3, 4, 5, 6, 7, and 4 more))) THEN round(price, 1) ELSE CAST('it''s' AS int64) END"
    );
}

#[test]
fn regular_expressions_are_found_anywhere_and_compiled_once() {
    let matches = |pattern: Expr| call(Function::Matches, [col("name"), pattern]);
    let text = match evaluate(&col("name")).unwrap() {
        Datum::Text(text) => text.into_owned(),
        other => panic!("{other:?}"),
    };
    for (pattern, expected) in [
        (String::new(), true),
        (format!("^{text}$"), true),
        (format!("(?i){}", text.to_uppercase()), true),
        (r"^\d+$".into(), false),
    ] {
        assert_eq!(
            evaluate(&matches(Expr::text(pattern.clone()))),
            Ok(Datum::Bool(expected)),
            "{pattern}"
        );
    }
    let refused = |pattern| matches(pattern).bind(&schema()).unwrap_err().to_string();
    let unclosed = refused(Expr::text("(a"));
    assert!(
        unclosed.contains("a regular expression, got unclosed group"),
        "{unclosed}"
    );
    let computed = refused(col("name"));
    assert!(computed.contains("that is a constant"), "{computed}");
    let large = refused(Expr::text(r"\w{1000}{1000}"));
    assert!(large.contains("bytes, compiled"), "{large}");
}

/// A date that no timestamp reaches: the multiplication overflowed, and without checks gave another moment (found by a random
/// expression).
#[test]
fn a_date_beyond_all_timestamps_is_none() {
    let far = Expr::Literal(Literal::Date(i32::MAX));
    let cast = Expr::Cast(Arc::new(far), DataType::Timestamp { zoned: false });
    let error = evaluate(&cast).unwrap_err().to_string();
    assert!(error.contains("a timestamp, got day"), "{error}");
}

/// The bytes of format 1: catalogues keep them.
#[test]
fn the_format_stays() {
    let expr = col("a").compare(Comparison::Le, number(-25, 1)).and(call(
        Function::Like,
        [Expr::Column(ColumnName::Id(258)), Expr::text("x%")],
    ));
    let mut expected = vec![1, 10, 9, 3, 1, 1, b'a', 3, 2];
    expected.extend((-25i128).to_le_bytes());
    expected.extend([1, 18, 8, 2, 2, 2, 1, 3, 7, 2, b'x', b'%']);
    assert_eq!(expr.encode(), expected);
    assert_eq!(Expr::decode(&expected), Ok(expr));
    assert_eq!(
        Expr::decode(&[2]).unwrap_err().to_string(),
        "encoded expression, byte 1: expected format 1, got 2"
    );
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        Just(Literal::Null),
        any::<bool>().prop_map(Literal::Bool),
        (any::<i128>(), 0..=38u8).prop_map(|(unscaled, scale)| Literal::Exact { unscaled, scale }),
        (-50i128..50, 0..3u8).prop_map(|(unscaled, scale)| Literal::Exact { unscaled, scale }),
        (-1e9..1e9f64).prop_map(Literal::Float),
        any::<i32>().prop_map(Literal::Date),
        (0..TIME_US_END).prop_map(Literal::Time),
        (any::<i64>(), any::<bool>()).prop_map(|(us, zoned)| Literal::Timestamp { us, zoned }),
        "\\PC{0,5}".prop_map(Literal::Text),
        prop::collection::vec(any::<u8>(), 0..5).prop_map(Literal::Bytes),
        any::<[u8; 16]>().prop_map(Literal::Uuid),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        3 => prop::sample::select(vec!["c0", "c1", "c2", "c3", "c4"]).prop_map(Expr::column),
        1 => any::<u16>().prop_map(|id| Expr::Column(ColumnName::Id(id))),
        3 => literal().prop_map(Expr::Literal),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let one = || inner.clone().prop_map(Arc::new);
        let operator = prop::sample::select(vec![
            Arithmetic::Add,
            Arithmetic::Sub,
            Arithmetic::Mul,
            Arithmetic::Div,
            Arithmetic::FloorDiv,
            Arithmetic::Mod,
        ]);
        let comparison = prop::sample::select(vec![
            Comparison::Eq,
            Comparison::Ne,
            Comparison::Lt,
            Comparison::Le,
            Comparison::Gt,
            Comparison::Ge,
        ]);
        prop_oneof![
            one().prop_map(Expr::Not),
            one().prop_map(Expr::Negate),
            one().prop_map(Expr::IsNull),
            (operator, one(), one()).prop_map(|(o, a, b)| Expr::Arithmetic(o, a, b)),
            (comparison, one(), one()).prop_map(|(c, a, b)| Expr::Compare(c, a, b)),
            (one(), one()).prop_map(|(a, b)| Expr::And(a, b)),
            (one(), one()).prop_map(|(a, b)| Expr::Or(a, b)),
            (one(), prop::collection::vec(literal(), 0..4))
                .prop_map(|(a, list)| Expr::In(a, list.into())),
            (inner.clone(), inner.clone(), prop::option::of(one()))
                .prop_map(|(a, b, c)| Expr::Case([(a, b)].into(), c)),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|of| Expr::Coalesce(of.into())),
            (one(), typed::data_type()).prop_map(|(a, to)| Expr::Cast(a, to)),
            (one(), 0..5u8).prop_map(|(a, scale)| Expr::Round(a, scale)),
            (inner.clone(), inner.clone())
                .prop_map(|(a, b)| Expr::Call(Function::Like, [a, b].into())),
            (inner, "[a-c.*()|]{0,5}")
                .prop_map(|(a, b)| Expr::Call(Function::Matches, [a, Expr::text(b)].into())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn bytes_come_back(expr in expr()) {
        let bytes = expr.encode();
        prop_assert_eq!(Expr::decode(&bytes), Ok(expr));
        for cut in 0..bytes.len() {
            prop_assert!(Expr::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(0..20u8, 0..60)) {
        let mut with_format = vec![1];
        with_format.extend(bytes);
        if let Ok(expr) = Expr::decode(&with_format) {
            prop_assert_eq!(Expr::decode(&expr.encode()), Ok(expr));
        }
    }

    /// What binds has, for every row, a value of its kind or an error: never a panic.
    #[test]
    fn what_binds_evaluates((schema, row, exprs) in typed::schema(5).prop_flat_map(|schema| {
        let row = typed::row(&schema);
        (Just(schema), row, prop::collection::vec(expr(), 8))
    })) {
        for expr in exprs {
            let Ok(bound) = expr.bind(&schema) else { continue };
            if let Ok(datum) = bound.evaluate(&|column| row[column].as_ref())
                && let Some(data_type) = bound.data_type()
                && let Ok(value) = datum.into_value(data_type)
            {
                let column = Column { id: 1, name: "x".into(), data_type, nullable: true };
                prop_assert!(column.check(value.as_ref()).is_ok(), "{} gave {:?} for {}", expr, value, data_type);
            }
        }
    }
}
