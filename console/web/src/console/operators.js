// Who may log in, who is logged in, and the end of all sessions of one.
import { Refused, get, post, us } from "./asking.js";
import { element, repeated, sure, table } from "./page.js";
import { moment, number, say } from "./words.js";

const EVERY = 5000;

export function operators({ problem }) {
  const node = element("div", {});
  const asking = repeated(problem, (signal) => get("operators", {}, signal), ({ operators: all }) => node.replaceChildren(shown(all)), EVERY);

  function shown(all) {
    const columns = [say("operator"), say("role"), say("sessions"), say("lastUsed"), ""];
    return table(say("operators"), columns, all.map((each) => [each.name, say(`role.${each.role}`), number(each.sessions), moment(each.used), button(each)]));
  }

  /** One's own sessions may everybody end. */
  function button({ name, sessions }) {
    if (!sessions || (name !== us.name && us.role !== "operator")) return null;
    return element("button", { type: "button", class: "bad", onclick: () => ended(name) }, say("logOutEverywhere"));
  }

  async function ended(name) {
    const question = name === us.name ? say("sure.logOutUs") : say("sure.logOut", name);
    if (!(await sure(question, say("logOutEverywhere"), say("keep")))) return;
    try {
      await post("log-out-everywhere", { name });
      problem(null);
      asking.again(); // of ourselves: that says that we are logged out
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      problem(error);
    }
  }

  asking.again();
  return { title: say("operators"), nodes: [element("p", { class: "hint" }, say("operatorsHint")), node], close: asking.close, changed: () => {} };
}
