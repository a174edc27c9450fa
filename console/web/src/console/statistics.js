// Figures by minute or hour, as charts and as tables.
import uPlot from "uplot";
import { get } from "./asking.js";
import { element, repeated, table } from "./page.js";
import { field } from "./registrations.js";
import { clock, moment, number, percent, say } from "./words.js";

const WINDOWS = { minute: 60_000, hour: 3_600_000 };
const SHOWN = { minute: 60, hour: 24 };
const EVERY = 10_000;
const STEPS = [1, 2, 5].flatMap((step) => [0, 1, 2, 3, 4, 5, 6].map((zeros) => step * 10 ** zeros)).sort((a, b) => a - b);
const DARK = matchMedia("(prefers-color-scheme: dark)");
const COLORS = { light: ["#0f766e", "#15803d", "#b91c1c", "#7c3aed"], dark: ["#2dd4bf", "#4ade80", "#f87171", "#a78bfa"] };

export function statistics({ problem, parameters, remember }) {
  const size = element("select", { id: "window" }, ...Object.keys(WINDOWS).map((name) => element("option", { value: name }, say(`window.${name}`))));
  size.value = parameters.get("window") === "hour" ? "hour" : "minute";
  const node = element("div", {});
  let charts = [];

  async function ask(signal) {
    const step = WINDOWS[size.value];
    const until = Math.floor(Date.now() / step) * step + step;
    const asked = { window: size.value, since: until - step * SHOWN[size.value], until };
    const [found, by] = await Promise.all([get("statistics", asked, signal), get("statistics", { ...asked, by: "gateway" }, signal)]);
    return { asked, step, found, by };
  }

  function draw({ asked: { since, until }, step, found, by }) {
    const open = [...node.querySelectorAll("details")].map((each) => each.open);
    charts.forEach((each) => each.destroy());
    charts = [];
    const starts = [];
    for (let start = since; start < until; start += step) starts.push(start);
    const sums = (rows, name) => {
      const by = new Map();
      for (const row of rows) by.set(row.start, (by.get(row.start) ?? 0) + row[name]);
      return starts.map((start) => by.get(start) ?? 0);
    };
    const worst = (rows, name) => {
      const by = new Map();
      for (const row of rows) if (row[name] !== null) by.set(row.start, Math.max(by.get(row.start) ?? 0, row[name]));
      return starts.map((start) => by.get(start) ?? null);
    };
    const of = (name) => sums(found.calls, name);
    const share = (part, whole) => part.map((value, index) => (whole[index] ? (100 * value) / whole[index] : null));
    const outcomes = of("answered").map((value, index) => value + of("failed")[index] + of("cancelled")[index]);
    const chartOf = (title, unit, lines) => {
      const { root, chart } = drawn(title, unit, starts, lines);
      charts.push(chart);
      return root;
    };
    node.replaceChildren(
      element(
        "div",
        { class: "charts" },
        chartOf(say("calls"), "", [["attempts", of("attempts")], ["answered", of("answered")], ["failed", of("failed")], ["missed", of("missed")]]),
        chartOf(say("concurrent"), "", [["concurrent", of("concurrent")]]),
        chartOf(say("quality"), " %", [["asr", share(of("answered"), outcomes)], ["ner", share(of("delivered"), outcomes)]]),
        chartOf(say("delay"), " ms", [["pdd50", worst(found.calls, "pdd_p50")], ["pdd95", worst(found.calls, "pdd_p95")]]),
        chartOf(say("online"), "", [["online", sums(found.registrations, "online")]]),
        chartOf(say("failedLogins"), "", [["failedLogins", sums(found.logins, "failed")]]),
      ),
      element("h2", {}, say("byGateway")),
      gateways(by.calls),
    );
    node.querySelectorAll("details").forEach((each, index) => (each.open = open[index] ?? false));
    charts.forEach((each) => fit(each));
  }

  const asking = repeated(problem, ask, draw, EVERY);
  const show = asking.again;
  const fit = (chart) => chart.setSize({ width: chart.root.parentElement.clientWidth, height: 220 });
  const resized = () => charts.forEach(fit);
  addEventListener("resize", resized);
  DARK.addEventListener("change", show);
  size.addEventListener("change", () => {
    remember({ window: size.value });
    show();
  });
  show();
  return {
    title: say("statistics"),
    nodes: [element("form", { class: "filters" }, field("window", say("windowSize"), size)), node],
    close: () => {
      asking.close();
      removeEventListener("resize", resized);
      DARK.removeEventListener("change", show);
      charts.forEach((each) => each.destroy());
    },
    changed: () => {},
  };
}

/** One chart, and the same as a table for who does not see it. */
function drawn(title, unit, starts, lines) {
  const style = getComputedStyle(document.documentElement);
  const [quiet, rule] = ["--quiet", "--line"].map((name) => style.getPropertyValue(name).trim());
  const colors = COLORS[DARK.matches ? "dark" : "light"];
  const axis = { stroke: quiet, grid: { stroke: rule, width: 1 }, ticks: { stroke: rule, width: 1 } };
  const place = element("div", { class: "chart", "aria-hidden": "true" });
  const chart = new uPlot(
    {
      width: 400,
      height: 220,
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [0, Math.max(1, high ?? 1) * 1.1] } },
      axes: [{ ...axis, values: (_, values) => values.map((at) => clock(at * 1000)) }, { ...axis, size: 60, incrs: STEPS, values: (_, values) => values.map((value) => `${number(value)}${unit}`) }],
      series: [
        { label: say("time"), value: (_, at) => (at ? moment(at * 1000) : "–") },
        ...lines.map(([name], index) => ({ label: say(`figure.${name}`), stroke: colors[index], width: 2, points: { size: 5, show: true, filter: alone }, value: (_, value) => (value === null ? "–" : `${number(value)}${unit}`) })),
      ],
    },
    [starts.map((start) => start / 1000), ...lines.map(([, values]) => values)],
    place,
  );
  const rows = starts.map((start, index) => [moment(start), ...lines.map(([, values]) => (values[index] === null ? "–" : `${number(values[index])}${unit}`))]).reverse();
  const details = element("details", {}, element("summary", {}, say("asTable")), table(title, [say("time"), ...lines.map(([name]) => say(`figure.${name}`))], rows));
  return { chart, root: element("section", { class: "card" }, element("h2", {}, title), place, details) };
}

/** The points that no line leads to: a value between two minutes that have none. */
function alone(plot, series, show) {
  const values = plot.data[series];
  return show ? [...values.keys()].filter((at) => values[at] !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null) : null;
}

function gateways(rows) {
  const by = new Map();
  for (const row of rows) {
    if (!row.gateway) continue;
    const of = by.get(row.gateway) ?? { attempts: 0, answered: 0, failed: 0, cancelled: 0 };
    for (const name of Object.keys(of)) of[name] += row[name];
    by.set(row.gateway, of);
  }
  if (!by.size) return element("p", { class: "hint" }, say("noGatewayCalls"));
  const cells = ([name, of]) => [name, number(of.attempts), number(of.answered), number(of.failed), percent(of.answered / (of.answered + of.failed + of.cancelled || 1))];
  return table(say("byGateway"), [say("gateway"), ...["attempts", "answered", "failed", "asr"].map((name) => say(`figure.${name}`))], [...by].sort().map(cells));
}
