//! Days as years, months and days, by the proleptic Gregorian calendar, and texts of dates.

/// Year, month (1-12) and day (1-31) of a number of days since 1970-01-01.
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that the leap day is a year's last.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Days since 1970-01-01 of a date; `None` if the month or day does not exist.
pub(crate) fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || !(-300_000..=300_000).contains(&year)
    {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    (civil(days) == (year, month, day)).then_some(days)
}

/// The days of a text such as `2020-02-29`.
pub(crate) fn parse_date(text: &str) -> Option<i32> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = rest.split('-');
    let mut number = || {
        let part = parts.next()?;
        let all_digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        all_digits.then(|| part.parse::<i64>().ok()).flatten()
    };
    let (year, month, day) = (number()?, number()?, number()?);
    if parts.next().is_some() {
        return None;
    }
    let year = if negative { -year } else { year };
    days_of(year, month, day).and_then(|days| i32::try_from(days).ok())
}

/// The text of a date.
pub(crate) fn format_date(days: i64) -> String {
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The text of a time of day.
pub(crate) fn format_time(us: i64) -> String {
    let (seconds, us) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
    let clock = format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    if us == 0 {
        clock
    } else {
        format!("{clock}.{us:06}")
    }
}

/// Microseconds of a day.
pub(crate) const DAY_US: i64 = 86_400_000_000;

/// The text of a moment.
pub(crate) fn format_timestamp(us: i64) -> String {
    let (days, time) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
    format!("{} {}", format_date(days), format_time(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_eight_centuries_comes_back() {
        let (mut year, mut month, mut day) = (1600, 1, 1);
        let start = days_of(1600, 1, 1).unwrap();
        for days in start..start + 292_194 {
            assert_eq!(civil(days), (year, month, day));
            assert_eq!(days_of(year, month, day), Some(days));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = [
                31,
                if leap { 29 } else { 28 },
                31,
                30,
                31,
                30,
                31,
                31,
                30,
                31,
                30,
                31,
            ];
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (month, day) if day == last[month as usize - 1] => (year, month + 1, 1),
                (month, day) => (year, month, day + 1),
            };
        }
        assert_eq!(civil(0), (1970, 1, 1));
    }

    #[test]
    fn texts() {
        assert_eq!(parse_date("2020-02-29"), Some(18_321));
        assert_eq!(format_date(18_321), "2020-02-29");
        for wrong in [
            "2021-02-29",
            "2020-13-01",
            "2020-1",
            "x",
            "",
            "2020-01-01-01",
            "+2020-01-01",
            "2020--1-01",
        ] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
        assert_eq!(format_timestamp(-1), "1969-12-31 23:59:59.999999");
    }
}
