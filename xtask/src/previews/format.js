// Numbers, colours and names, by the units, thresholds, mappings and legends that a panel names.

const COLOURS = { green: "#73bf69", orange: "#ff9830", red: "#f2495c", blue: "#5794f2", purple: "#b877d9", yellow: "#fade2a", text: "#ccccdc" };
const PALETTE = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#37872d", "#fade2a", "#8f3bb8", "#c0d8ff", "#ffa6b0"];
const colour = (name) => COLOURS[name] ?? name;

function scaled(value, step, names, decimals) {
  let at = 0;
  while (Math.abs(value) >= step && at < names.length - 1) { value /= step; at += 1; }
  return digits(value, decimals) + names[at];
}

function digits(value, decimals) {
  if (decimals !== undefined) return value.toFixed(decimals);
  const size = Math.abs(value);
  const places = size === 0 || size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 2 : 3;
  return String(Number(value.toFixed(places)));
}

function duration(value, decimals) {
  const size = Math.abs(value);
  if (value === 0) return "0 s";
  if (size < 1e-3) return digits(value * 1e6, decimals) + " µs";
  if (size < 1) return digits(value * 1e3, decimals) + " ms";
  for (const [name, length] of [["days", 86400], ["hours", 3600], ["mins", 60]]) {
    if (size >= length * (name === "days" ? 2 : 1.5)) return digits(value / length, decimals) + " " + name;
  }
  return digits(value, decimals) + " s";
}

function formatted(value, unit, decimals) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  switch (unit) {
    case "percentunit": return digits(value * 100, decimals ?? (Math.abs(value) < 0.1 ? 2 : 1)) + " %";
    case "bytes": return scaled(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB"], decimals);
    case "Bps": return scaled(value, 1000, [" B/s", " kB/s", " MB/s", " GB/s"], decimals);
    case "cps": return scaled(value, 1000, [" c/s", " kc/s", " Mc/s"], decimals);
    case "pps": return scaled(value, 1000, [" p/s", " kp/s", " Mp/s"], decimals);
    case "s": return duration(value, decimals);
    case "none": return String(value);
    case "dateTimeAsIso": return new Date(value).toISOString().slice(0, 19).replace("T", " ");
    default: return scaled(value, 1000, ["", " K", " Mil", " Bil"], decimals);
  }
}

/// What a mapping says about a value: { text, color }, or nothing.
function mapped(mappings, value) {
  for (const mapping of mappings ?? []) {
    const found = mapping.options[String(value)];
    if (found) return found;
  }
}

function threshold(thresholds, value) {
  let found = "green";
  for (const step of thresholds?.steps ?? []) if (step.value === null || value >= step.value) found = step.color;
  return colour(found);
}

function legend(target, labels) {
  if (target.legendFormat) return target.legendFormat.replace(/{{\s*(\w+)\s*}}/g, (_, label) => labels[label] ?? "");
  const rest = Object.entries(labels).filter(([key]) => key !== "__name__");
  return rest.length ? rest.map(([key, value]) => `${key}=${value}`).join(", ") : "value";
}

/// The properties that a panel's overrides give to a field.
function overrides(panel, name) {
  const all = {};
  for (const { matcher, properties } of panel.fieldConfig.overrides) {
    const fits = matcher.id === "byName" ? matcher.options === name : new RegExp(`^${matcher.options}$`).test(name);
    if (fits) for (const { id, value } of properties) all[id] = value;
  }
  return all;
}

const finite = (points) => points.map(([, value]) => value).filter(Number.isFinite);
const last = (points) => finite(points).at(-1);
const CALCULATIONS = {
  lastNotNull: ["Last *", (values) => values.at(-1)],
  mean: ["Mean", (values) => values.reduce((sum, value) => sum + value, 0) / values.length],
  max: ["Max", (values) => Math.max(...values)],
  min: ["Min", (values) => Math.min(...values)],
};

const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);
