// Puts every panel of a dashboard where its grid position says, 24 columns wide.

const [WIDTH, UNIT, GAP] = [1416, 36, 7];
const main = document.querySelector("main");
const place = ({ x, y, w, h }) =>
  `left: ${(WIDTH * x) / 24}px; top: ${y * UNIT}px; width: ${(WIDTH * w) / 24 - GAP}px; height: ${h * UNIT - GAP}px;`;

document.querySelector("h1").textContent = DASHBOARD.title;
document.querySelector("header p").textContent =
  "Preview: drawn by ECharts from what a real Prometheus scraped in the test lab. Not a screenshot of Grafana.";
document.querySelector("footer").textContent =
  `${clock(CAPTURE.start)} to ${clock(CAPTURE.end)} UTC, all instances, routes and nodes; rates over ${CAPTURE.window}.`;

let bottom = 0;
for (const panel of DASHBOARD.panels) {
  bottom = Math.max(bottom, panel.gridPos.y + panel.gridPos.h);
  if (panel.type === "row") {
    element(main, "row", place(panel.gridPos), `⌄ ${panel.title}`);
    continue;
  }
  const own = element(main, "panel", place(panel.gridPos));
  own.append(Object.assign(document.createElement("h2"), { textContent: panel.title }));
  PANELS[panel.type](panel, CAPTURE.dashboards[DASHBOARD.uid][panel.id] ?? {}, own);
}
main.style.height = `${bottom * UNIT}px`;
