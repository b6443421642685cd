//! The cluster's status as plain dictionaries; `aurora_engine.status` gives them their shape.

use aurora_page::DataType;
use aurora_runtime::{CacheStatus, Event, NodeState, Status};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::to_py::timestamp_to_py;

/// The status, field by field.
pub fn status_dict<'py>(py: Python<'py>, status: &Status) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("cluster", &status.cluster)?;
    out.set_item("path", &status.path)?;
    out.set_item("region", &status.region)?;
    out.set_item("state", &status.state)?;
    out.set_item("epoch", status.epoch)?;
    out.set_item("points", points(py, status)?)?;
    out.set_item("segments", status.segments)?;
    out.set_item("segment_bytes", status.segment_bytes)?;
    out.set_item("page_bytes", status.page_bytes)?;
    out.set_item("nodes", nodes(py, status)?)?;
    out.set_item("devices", status.devices)?;
    out.set_item("fault_domains", status.fault_domains())?;
    out.set_item("log_bytes", status.log_bytes)?;
    out.set_item("cache", cache(py, &status.cache)?)?;
    out.set_item("instances", instances(py, status)?)?;
    out.set_item("background", background(py, status)?)?;
    Ok(out)
}

fn points<'py>(py: Python<'py>, status: &Status) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("vdl", status.points.vdl.0)?;
    out.set_item("vcl", status.points.vcl.0)?;
    out.set_item("allocated", status.points.allocated.0)?;
    out.set_item("lal", status.points.lal.0)?;
    out.set_item("floor", status.floor.0)?;
    Ok(out)
}

fn nodes<'py>(py: Python<'py>, status: &Status) -> PyResult<Bound<'py, PyList>> {
    let nodes = PyList::empty(py);
    for node in &status.nodes {
        let out = PyDict::new(py);
        out.set_item("id", node.id.0)?;
        out.set_item("az", &node.az)?;
        out.set_item("path", &node.path)?;
        out.set_item("device", node.device)?;
        out.set_item("state", state_name(node.state))?;
        out.set_item("bytes", node.bytes)?;
        out.set_item("layers", node.layers)?;
        out.set_item("complete_to", node.complete_to.0)?;
        out.set_item("progress", node.progress)?;
        nodes.append(out)?;
    }
    Ok(nodes)
}

fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Healthy => "healthy",
        NodeState::Repairing => "repairing",
        NodeState::Lost => "lost",
        NodeState::Unreachable => "unreachable",
    }
}

fn cache<'py>(py: Python<'py>, cache: &CacheStatus) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("hits", cache.hits)?;
    out.set_item("misses", cache.misses)?;
    out.set_item("bytes", cache.bytes)?;
    out.set_item("bytes_max", cache.bytes_max)?;
    out.set_item("hit_ratio", cache.hit_ratio())?;
    Ok(out)
}

fn instances<'py>(py: Python<'py>, status: &Status) -> PyResult<Bound<'py, PyList>> {
    let instances = PyList::empty(py);
    for instance in &status.instances {
        let out = PyDict::new(py);
        out.set_item("name", &instance.name)?;
        out.set_item("role", instance.role)?;
        out.set_item("tier", instance.tier)?;
        out.set_item("instance_class", &instance.class)?;
        out.set_item("readable", instance.readable.0)?;
        out.set_item("lag_ms", instance.lag_ms)?;
        out.set_item("lag_lsns", instance.lag_lsns)?;
        out.set_item("shown_ms_p50", instance.shown_ms_p50)?;
        out.set_item("shown_ms_p99", instance.shown_ms_p99)?;
        out.set_item("rejoins", instance.rejoins)?;
        out.set_item("connections", instance.connections)?;
        out.set_item("cache", cache(py, &instance.cache)?)?;
        instances.append(out)?;
    }
    Ok(instances)
}

/// Events, the oldest first.
pub fn events<'py>(py: Python<'py>, events: &[Event]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for event in events {
        let zoned = DataType::Timestamp { zoned: true };
        let out = PyDict::new(py);
        out.set_item("time", timestamp_to_py(py, event.time_us, zoned)?)?;
        out.set_item("what", event.what)?;
        out.set_item("who", &event.who)?;
        out.set_item("detail", &event.detail)?;
        out.set_item("took_s", event.took.map(|took| took.as_secs_f64()))?;
        list.append(out)?;
    }
    Ok(list)
}

fn background<'py>(py: Python<'py>, status: &Status) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("flushed_bytes", status.background.flushed_bytes)?;
    out.set_item("compacted_bytes", status.background.compacted_bytes)?;
    out.set_item("scrubbed_bytes", status.background.scrubbed_bytes)?;
    out.set_item("repaired_records", status.background.repaired_records)?;
    out.set_item("last_error", &status.background.last_error)?;
    Ok(out)
}
