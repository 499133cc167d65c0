// One function for each type of panel that the dashboards use. Each gets the panel, its series and an element.

function element(parent, name, style = "", text = "") {
  const own = document.createElement("div");
  if (name) own.className = name;
  own.style.cssText = style;
  own.textContent = text;
  parent.append(own);
  return own;
}

function chart(parent, options) {
  const own = echarts.init(element(parent, "chart"), null, { renderer: "svg" });
  own.setOption({ animation: false, textStyle: { fontFamily: "Inter", color: "#9a9aa8" }, ...options });
  return own;
}

/// The series of all queries, with the names that Grafana would give them.
function named(panel, series) {
  return panel.targets.flatMap((target) =>
    (series[target.refId] ?? []).map((own) => ({ ...own, name: legend(target, own.labels) })));
}

function timeAxis() {
  return { type: "time", min: CAPTURE.start * 1000, max: CAPTURE.end * 1000, axisLine: { lineStyle: { color: "#3a3d45" } }, axisTick: { show: false },
    splitLine: { show: true, lineStyle: { color: "#22252b" } }, splitNumber: 5,
    axisLabel: { fontSize: 10.5, color: "#a4a4b2", hideOverlap: true, formatter: (value) => clock(value / 1000) } };
}

function valueAxis(unit, side, limits) {
  if (limits.max === 1) limits = { ...limits, interval: 0.25 };
  return { type: "value", position: side, ...limits, splitNumber: 4, splitLine: { show: side === "left", lineStyle: { color: "#22252b" } },
    axisLabel: { fontSize: 10.5, color: "#a4a4b2", formatter: (value) => formatted(value, unit) } };
}

const PANELS = {
  stat(panel, series, parent) {
    const { unit, decimals, mappings, thresholds } = panel.fieldConfig.defaults;
    const [own] = named(panel, series);
    if (!own || last(own.points) === undefined) return element(parent, "empty", "", "No data");
    const value = last(own.points);
    const found = mapped(mappings, value);
    const shade = found?.color ? colour(found.color) : threshold(thresholds, value);
    const filled = panel.options.colorMode === "background";
    if (filled) {
      parent.classList.add("filled");
      parent.style.background = `${shade}b0`;
    }
    element(parent, "stat", filled ? "" : `color: ${shade}`, found?.text ?? formatted(value, unit, decimals));
    if (panel.options.graphMode !== "area") return;
    const spark = echarts.init(element(parent, "spark"), null, { renderer: "svg" });
    spark.setOption({ animation: false, grid: { left: 0, right: 0, top: 2, bottom: 0 }, xAxis: { type: "time", show: false },
      yAxis: { type: "value", show: false, min: 0 },
      series: [{ type: "line", data: own.points.map(([time, it]) => [time * 1000, it]), showSymbol: false, lineStyle: { width: 1, color: shade }, areaStyle: { color: shade, opacity: 0.15 } }] });
  },

  gauge(panel, series, parent) {
    const { unit, decimals, thresholds, min, max } = panel.fieldConfig.defaults;
    const [own] = named(panel, series);
    if (!own) return element(parent, "empty", "", "No data");
    const value = last(own.points);
    const steps = thresholds.steps;
    const bands = steps.map((step, at) => [steps[at + 1] ? (steps[at + 1].value - min) / (max - min) : 1, colour(step.color)]);
    const ring = { type: "gauge", min, max, startAngle: 200, endAngle: -20, center: ["50%", "66%"], axisTick: { show: false }, splitLine: { show: false }, axisLabel: { show: false }, pointer: { show: false } };
    chart(parent, { series: [
      { ...ring, radius: "108%", axisLine: { lineStyle: { width: 4, color: bands } }, detail: { show: false }, data: [{ value }] },
      { ...ring, radius: "98%", axisLine: { lineStyle: { width: 18, color: [[1, "#23262c"]] } }, progress: { show: true, width: 18, itemStyle: { color: threshold(thresholds, value) } },
        detail: { fontSize: 24, fontWeight: 500, offsetCenter: [0, "-4%"], color: threshold(thresholds, value), formatter: (it) => formatted(it, unit, decimals) }, data: [{ value }] },
    ] });
  },

  timeseries(panel, series, parent) {
    const { unit, custom, min, max, thresholds, decimals } = panel.fieldConfig.defaults;
    const all = named(panel, series).filter((own) => finite(own.points).length);
    if (!all.length) return element(parent, "empty", "", "No data");
    const right = all.map((own) => overrides(panel, own.name)["custom.axisPlacement"] === "right");
    const lines = all.map((own, at) => {
      const extra = overrides(panel, own.name);
      const shade = extra.color ? colour(extra.color.fixedColor) : PALETTE[at % PALETTE.length];
      const sign = extra["custom.transform"] === "negative-Y" ? -1 : 1;
      own.shade = shade;
      own.unit = extra.unit ?? unit;
      const steps = custom.lineInterpolation === "stepAfter" ? { step: "end" } : {};
      return { type: "line", name: own.name, showSymbol: false, yAxisIndex: right[at] ? 1 : 0, ...steps,
        stack: custom.stacking.mode === "normal" ? `all${sign}` : undefined, color: shade,
        lineStyle: { width: 1.3, type: extra["custom.lineStyle"]?.fill === "dash" ? "dashed" : "solid" },
        areaStyle: { opacity: (extra["custom.fillOpacity"] ?? custom.fillOpacity) / 100 },
        data: own.points.map(([time, value]) => [time * 1000, Number.isFinite(value) ? sign * value : null]) };
    });
    if (custom.thresholdsStyle.mode !== "off") {
      const marks = thresholds.steps.filter((step) => step.value !== null);
      lines[0].markLine = { silent: true, symbol: "none", label: { show: false },
        data: marks.map((step) => ({ yAxis: step.value, lineStyle: { color: colour(step.color), type: "dashed" } })) };
    }
    // Room for the values at both sides, as wide as their longest label.
    const axes = [valueAxis(unit, "left", { min, max })];
    if (right.includes(true)) axes.push(valueAxis(all[right.indexOf(true)].unit, "right", { min: 0 }));
    const drawn = chart(parent, { grid: { left: 62, right: right.includes(true) ? 48 : 16, top: 8, bottom: 22 }, xAxis: timeAxis(), yAxis: axes, series: lines });
    legendTable(panel, all, parent, decimals);
    drawn.resize();
  },

  heatmap(panel, series, parent) {
    const { unit } = panel.fieldConfig.defaults;
    const bound = (own) => Number(own.labels.le.replace("+Inf", "Infinity"));
    const all = named(panel, series).sort((a, b) => bound(a) - bound(b));
    if (!all.length) return element(parent, "empty", "", "No data");
    const times = all[0].points.map(([time]) => time);
    const cells = [];
    all.forEach((own, row) => {
      const below = new Map(row ? all[row - 1].points : []);
      own.points.forEach(([time, value]) => {
        const count = value - (below.get(time) ?? 0);
        if (count > 1e-9) cells.push([times.indexOf(time), row, count]);
      });
    });
    const most = Math.max(...cells.map((cell) => cell[2]));
    chart(parent, { grid: { left: 62, right: 16, top: 8, bottom: 22 },
      xAxis: { type: "category", data: times.map(clock), axisLabel: { fontSize: 10.5, color: "#a4a4b2", interval: Math.ceil(times.length / 6) }, axisTick: { show: false }, axisLine: { lineStyle: { color: "#3a3d45" } } },
      yAxis: { type: "category", data: all.map((own) => Number.isFinite(bound(own)) ? formatted(bound(own), unit) : "+Inf"), axisLabel: { fontSize: 10, color: "#a4a4b2", interval: 1 }, axisTick: { show: false }, axisLine: { show: false } },
      visualMap: { show: false, min: 0, max: most, inRange: { color: ["#3a2a17", "#8a4a12", "#e0751a", "#ffb357", "#ffe6bf"] } },
      series: [{ type: "heatmap", data: cells }] });
  },

  bargauge(panel, series, parent) {
    const { unit, thresholds, decimals, max } = panel.fieldConfig.defaults;
    const all = named(panel, series).filter((own) => last(own.points) !== undefined);
    if (!all.length) return element(parent, "empty", "", "No data");
    const most = max ?? Math.max(...all.map((own) => last(own.points)));
    const list = element(parent, "bars");
    for (const own of all) {
      const value = last(own.points);
      const line = element(list);
      line.innerHTML = "<label></label><span><b></b></span><em></em>";
      line.children[0].textContent = own.name;
      line.querySelector("b").style.cssText = `width: ${(100 * value) / most}%; background: ${threshold(thresholds, value)}`;
      line.children[2].textContent = formatted(value, unit, decimals);
    }
  },

  "state-timeline"(panel, series, parent) {
    const { mappings } = panel.fieldConfig.defaults;
    const all = named(panel, series);
    if (!all.length) return element(parent, "empty", "", "No data");
    const place = (time) => (100 * (time - CAPTURE.start)) / (CAPTURE.end - CAPTURE.start);
    const lanes = element(parent, "lanes");
    for (const own of all) {
      const line = element(lanes);
      line.innerHTML = '<span></span><span class="lane"></span>';
      line.children[0].textContent = own.name;
      // Equal values are one stretch, each up to where the next begins.
      const starts = own.points.filter(([, value], at) => value !== own.points[at - 1]?.[1]);
      starts.forEach(([time, value], at) => {
        const until = starts[at + 1]?.[0] ?? CAPTURE.end;
        const piece = document.createElement("b");
        piece.style.cssText = `left: ${place(time)}%; width: ${place(until) - place(time)}%; background: ${colour(mapped(mappings, value)?.color ?? "blue")}; opacity: .82`;
        line.children[1].append(piece);
      });
    }
    const ticks = element(lanes, "ticks");
    ticks.innerHTML = '<span></span><span class="lane"></span>';
    for (let part = 1; part < 6; part += 1) {
      const mark = document.createElement("u");
      mark.style.left = `${(100 * part) / 6}%`;
      mark.textContent = clock(CAPTURE.start + ((CAPTURE.end - CAPTURE.start) * part) / 6);
      ticks.children[1].append(mark);
    }
    const keys = element(parent, "keys");
    for (const { text, color } of mappings.flatMap((mapping) => Object.values(mapping.options))) {
      const key = element(keys);
      key.innerHTML = `<i style="background: ${colour(color)}"></i>`;
      key.append(text);
    }
  },

  table(panel, series, parent) {
    const { renameByName, indexByName } = panel.transformations.find((it) => it.id === "organize").options;
    const keys = Object.keys(indexByName);
    const columns = panel.targets.map((target) => ({ target, name: renameByName[`Value #${target.refId}`] }));
    const rows = new Map();
    for (const { target, name } of columns) {
      for (const own of series[target.refId] ?? []) {
        const key = JSON.stringify(keys.map((it) => own.labels[it]));
        rows.set(key, { ...(rows.get(key) ?? {}), [name]: last(own.points) });
      }
    }
    const [{ displayName, desc }] = panel.options.sortBy;
    const order = [...rows].sort(([a, x], [b, y]) => (desc ? (y[displayName] ?? 0) - (x[displayName] ?? 0) : a < b ? -1 : 1));
    const table = document.createElement("table");
    table.className = "table";
    const cells = (kind, list) => {
      const line = table.insertRow();
      for (const it of list) line.append(Object.assign(document.createElement(kind), typeof it === "string" ? { textContent: it } : it));
    };
    cells("th", [...keys.map((key) => renameByName[key]), ...columns.map(({ name }) => name)]);
    const most = Object.fromEntries(columns.map(({ name }) => [name, Math.max(...[...rows.values()].map((row) => row[name] ?? 0))]));
    for (const [key, row] of order) cells("td", [...JSON.parse(key).map(String), ...columns.map(({ name }) => cell(panel, name, row[name], most[name]))]);
    element(parent, "chart", "overflow: hidden").append(table);
  },

  geomap(panel, series, parent) {
    const world = topojson.feature(WORLD, WORLD.objects.countries);
    world.features = world.features.filter((own) => own.id !== "010"); // Antarctica
    world.features.flatMap(pieces).forEach(([ring]) => unbroken(ring));
    echarts.registerMap("world", world);
    const numbers = new Map(CODES.map(([two, , number]) => [two, number]));
    const land = (code) => numbers.has(code) && world.features.find((own) => own.id === numbers.get(code));
    const all = named(panel, series).map((own) => ({ code: own.labels.country, value: last(own.points) }))
      .filter((own) => own.value > 0 && land(own.code));
    const most = Math.max(...all.map((own) => own.value));
    const points = all.map(({ code, value }) => ({ name: code, value: [...centre(land(code)), value] }));
    chart(parent, {
      geo: { map: "world", roam: false, boundingCoords: [[-170, 80], [190, -56]], top: 4, bottom: 4, left: 4, right: 4, silent: true, itemStyle: { areaColor: "#2b3038", borderColor: "#454b57", borderWidth: 0.6 } },
      visualMap: { min: 0, max: most, left: 10, bottom: 10, itemHeight: 90, textStyle: { color: "#9a9aa8", fontSize: 10.5 }, text: [formatted(most, "short", 0), "0"], inRange: { color: ["#5794f2", "#fade2a", "#f2495c"] } },
      series: [{ type: "scatter", coordinateSystem: "geo", data: points, symbolSize: (it) => 10 + 36 * Math.sqrt(it[2] / most), itemStyle: { opacity: 0.75 },
        label: { show: true, formatter: (it) => it.name, color: "#fff", fontSize: 11, fontWeight: 500 } }] });
  },
};

function cell(panel, name, value, most) {
  const extra = overrides(panel, name);
  if (value === undefined) return "";
  const found = mapped(extra.mappings, value);
  const text = found?.text ?? formatted(value, extra.unit, extra.decimals);
  const kind = extra["custom.cellOptions"]?.type;
  const shade = found ? colour(found.color) : extra.thresholds ? threshold(extra.thresholds, value) : colour("text");
  if (kind === "gauge") {
    const share = value / (extra.max ?? (most || 1));
    return { innerHTML: `<span class="meter" style="width: ${Math.round(70 * share)}px"></span>${text}` };
  }
  const style = { "color-background": `background: ${shade}; color: #111217`, "color-text": `color: ${shade}` }[kind] ?? "";
  return { textContent: text, style };
}

/// Grafana's table below a graph: name and figures, sorted as the panel says; what does not fit is counted.
function legendTable(panel, all, parent, decimals) {
  const { calcs, sortBy } = panel.options.legend;
  const columns = calcs.map((name) => CALCULATIONS[name]);
  const by = columns.find(([name]) => name === sortBy) ?? columns[0];
  const order = [...all].sort((a, b) => by[1](finite(b.points)) - by[1](finite(a.points)));
  const room = Math.max(2, Math.floor((parent.clientHeight * 0.36) / 15) - 1);
  const shown = order.length > room ? order.slice(0, room - 1) : order;
  const table = document.createElement("table");
  table.className = "legend";
  table.innerHTML = `<tr><th>Name</th>${columns.map(([name]) => `<th>${name}</th>`).join("")}</tr>`;
  for (const own of shown) {
    const line = table.insertRow();
    line.insertCell().innerHTML = `<i style="background: ${own.shade}"></i>`;
    line.cells[0].append(own.name);
    for (const [, calculate] of columns) line.insertCell().textContent = formatted(calculate(finite(own.points)), own.unit, decimals);
  }
  if (shown.length < order.length) table.insertRow().insertCell().textContent = `and ${order.length - shown.length} more`;
  parent.append(table);
}

/// The polygons of a country, each a list of rings with the outer one first.
function pieces(country) {
  const { type, coordinates } = country.geometry;
  return type === "Polygon" ? [coordinates] : coordinates;
}

/// A ring that crosses the antimeridian goes on beyond 180 degrees, instead of coming back around the world.
function unbroken(ring) {
  const across = ring.map(([x]) => x);
  if (Math.max(...across) - Math.min(...across) < 180) return;
  for (const point of ring) if (point[0] < 0) point[0] += 360;
}

/// The middle of a country's largest piece.
function centre(country) {
  let best = [0, [0, 0]];
  for (const [ring] of pieces(country)) {
    let [area, x, y] = [0, 0, 0];
    for (let at = 0; at + 1 < ring.length; at += 1) {
      const [[x0, y0], [x1, y1]] = [ring[at], ring[at + 1]];
      const cross = x0 * y1 - x1 * y0;
      [area, x, y] = [area + cross, x + (x0 + x1) * cross, y + (y0 + y1) * cross];
    }
    if (Math.abs(area) > best[0]) best = [Math.abs(area), [x / (3 * area), y / (3 * area)]];
  }
  return best[1];
}
