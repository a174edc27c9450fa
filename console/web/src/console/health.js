// How the processes are, how far tables are behind the log, and whether gateways answer.
import { get } from "./asking.js";
import { element, facts, repeated, table } from "./page.js";
import { number, percent, say } from "./words.js";

const EVERY = 3000;

export function health({ problem }) {
  const node = element("div", {});
  const asking = repeated(problem, (signal) => get("health", {}, signal), (found) => node.replaceChildren(...shown(found)), EVERY);
  asking.again();
  return { title: say("health"), nodes: [node], close: asking.close, changed: () => {} };
}

function shown({ processes, overall, projections, away, gateways }) {
  const ages = Object.entries(overall.age_seconds).map(([name, age]) => `${name} ${number(age)} s`);
  const responses = Object.entries(overall.responses_per_second).map(([kind, rate]) => `${kind} ${number(rate)}/s`);
  const wrong = processes.filter((each) => !each.ready);
  const alarms = [
    away ? say("tablesAway", away) : null,
    overall.stopped_partitions ? say("stopped", number(overall.stopped_partitions)) : null,
    overall.dead_letters ? say("deadLetters", number(overall.dead_letters)) : null,
    wrong.length ? say("notReady", wrong.map((each) => each.name).join(", ")) : null,
  ].filter(Boolean);
  return [
    element("p", { class: alarms.length ? "state bad-state" : "state", role: "status" }, alarms.length ? alarms.join("; ") : say("allWell")),
    element(
      "div",
      { class: "card" },
      facts([
        [say("registrations"), `${number(overall.bindings)} (${number(overall.registrations_per_second)}/s)`],
        [say("failedLogins"), `${number(overall.failed_logins_per_second)}/s`],
        [say("responses"), responses.join(", ") || "–"],
        [say("unavailable"), percent(overall.unavailable_share)],
        [say("age"), ages.join(", ") || "–"],
      ]),
    ),
    element("h2", {}, say("projections")),
    table(say("projections"), [say("projection"), say("topic"), say("lag"), say("partitions")], projections.map((each) => [each.name, each.topic, number(each.lag), number(each.partitions)])),
    element("h2", {}, say("processes")),
    table(
      say("processes"),
      [say("name"), say("state"), "CPU", say("memory"), say("handled"), say("lag"), say("drops")],
      processes.map((each) => [
        each.name,
        each.ready ? say("ready") : element("strong", { class: "wrong-state" }, each.reasons.join("; ")),
        percent(each.cpu),
        `${number(each.memory_bytes / 1048576)} MB`,
        `${number(each.records_per_second)}/s`,
        number(each.lag),
        `${number(each.drops_per_second)}/s`,
      ]),
    ),
    element("h2", {}, say("gateways")),
    gateways.length
      ? table(say("gateways"), [say("name"), say("answersAt"), say("calls")], gateways.map((each) => [each.name, say("ofEdges", `${each.up} / ${each.edges}`), number(each.calls)]))
      : element("p", { class: "hint" }, say("noGateways")),
  ];
}
