"use strict";
// The members' table: search, filters, sorting, one member's violations; and, where `serve` answers, what is new.
(() => {
  const SHOWN = 50;
  const FIELDS = ["name", "state", "rules", "ill", "superseded", "since", "due", "acts", "golden", "image", "digest",
    "status", "began", "judged", "violations", "facts", "release"];
  const TEXTS = new Set(["name", "state", "ill", "acts", "golden", "image", "digest", "status", "release"]);
  const VIOLATION = ["rule", "enforcement", "stands", "what", "why", "evidence", "since", "due", "repairs", "todo", "side",
    "acts", "waivedBy"];
  const COLUMNS = ["name", "state", "since", "due", "acts", "golden"];
  const NEVER = Number.MAX_SAFE_INTEGER;
  const wanted = { search: "", fleet: "", state: "", rule: "", sort: "", down: false, shown: SHOWN };
  const count = new Intl.NumberFormat("en");
  let members = [], texts = [], packed = {}, found = [], sorted = {};

  const at = (id) => document.getElementById(id);
  const moment = (seconds) => seconds ? new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ") : "";

  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made && name !== "list") made[name] = value; else made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== "" && child !== null));
    return made;
  }

  function unpack() {
    packed = JSON.parse(at("rows").textContent);
    texts = packed.texts;
    sorted = {};
    members = packed.members.map((row, order) => {
      const member = { order };
      FIELDS.forEach((name, index) => { member[name] = TEXTS.has(name) ? texts[row[index]] : row[index]; });
      member.rules = member.rules.map((number) => texts[number]);
      member.fleet = member.name.slice(0, member.name.indexOf("/"));
      member.text = [member.name, member.state, ...member.rules, member.acts, member.golden, member.image, member.digest, member.release,
        member.ill].join(" ").toLowerCase();
      return member;
    });
  }

  function violationsOf(member) {
    return member.violations.map((number) => {
      const one = {};
      packed.violations[number].forEach((value, index) => {
        const name = VIOLATION[index];
        one[name] = Array.isArray(value) ? value.map((text) => texts[text])
          : ["stands", "since", "due"].includes(name) ? value : texts[value];
      });
      return one;
    });
  }

  // -- the table ------------------------------------------------------------------------------------------------------

  function choose() {
    const words = wanted.search.toLowerCase().split(/\s+/).filter(Boolean);
    found = inOrder().filter((member) =>
      (!wanted.fleet || member.fleet === wanted.fleet)
      && (!wanted.state || (wanted.state === "not healthy" ? member.ill : member.state === wanted.state))
      && (!wanted.rule || member.rules.includes(wanted.rule))
      && words.every((word) => member.text.includes(word)));
    if (wanted.down) found.reverse();
  }

  // All members by the column that was asked for: sorted once, not at each key.
  function inOrder() {
    const key = wanted.sort;
    if (!key) return members;
    const value = ["since", "due"].includes(key) ? (member) => member[key] || NEVER : (member) => member[key];
    sorted[key] ||= [...members].sort((one, two) => {
      const first = value(one), second = value(two);
      return first < second ? -1 : first > second ? 1 : one.order - two.order;
    });
    return sorted[key];
  }

  function badge(text, kind) { return element("span", { className: `badge ${kind}` }, text); }

  function row(member) {
    const state = element("td", { "data-is": "state" },
      badge(member.rules.join(", ") || member.state,
        { "within policy": "good", "not judged": "soft" }[member.state] || "bad"));
    if (member.ill) state.append(" ", badge(member.ill, "bad"));
    if (member.superseded && !member.rules.includes("superseded")) state.append(" ", badge("a newer one is out", "warn"));
    return element("tr", {},
      element("th", { scope: "row" },
        element("button", { type: "button", className: "link", "data-member": member.name }, member.name)),
      state,
      element("td", { className: "day", "data-is": "since" }, moment(member.since)),
      element("td", { className: "day", "data-is": "due" }, moment(member.due)),
      element("td", { "data-is": "who acts" }, member.acts),
      element("td", { "data-is": "image" }, member.golden, " ", element("code", {}, member.digest)));
  }

  function show() {
    choose();
    const body = at("member-rows");
    body.replaceChildren(...found.slice(0, wanted.shown).map((member) => member.row ||= row(member)));
    const shown = Math.min(wanted.shown, found.length);
    at("count").textContent = `${count.format(found.length)} of ${count.format(members.length)} members`
      + (shown < found.length ? `, the first ${count.format(shown)} shown` : "");
    at("more").hidden = shown >= found.length;
    at("filters").hidden = at("count").hidden = !members.length;
    document.querySelectorAll("#member-table thead th").forEach((head, index) => {
      const mine = COLUMNS[index] === wanted.sort;
      if (mine) head.setAttribute("aria-sort", wanted.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  function options(id, values, chosen) {
    const select = at(id);
    select.replaceChildren(element("option", { value: "" }, "all"),
      ...values.map((value) => element("option", { value }, value)));
    select.value = values.includes(chosen) ? chosen : "";
  }

  function controls() {
    const distinct = (values) => [...new Set(values)].sort();
    options("by-fleet", distinct(members.map((member) => member.fleet)), wanted.fleet);
    options("by-state", [...distinct(members.map((member) => member.state)), "not healthy"], wanted.state);
    options("by-rule", distinct(members.flatMap((member) => member.rules)), wanted.rule);
    at("search").value = wanted.search;
    for (const [id, name] of [["search", "search"], ["by-fleet", "fleet"], ["by-state", "state"], ["by-rule", "rule"]]) {
      at(id).addEventListener(id === "search" ? "input" : "change", (event) => {
        wanted[name] = event.target.value;
        wanted.shown = SHOWN;
        show();
      });
    }
    document.querySelectorAll("#member-table thead th").forEach((head, index) => {
      const button = element("button", { type: "button", className: "sort" }, head.textContent.trim());
      button.addEventListener("click", () => {
        wanted.down = wanted.sort === COLUMNS[index] && !wanted.down;
        wanted.sort = COLUMNS[index];
        wanted.shown = SHOWN;
        show();
      });
      head.replaceChildren(button);
    });
    at("more").addEventListener("click", () => {
      const first = Math.min(wanted.shown, found.length);
      wanted.shown += 5 * SHOWN;
      show();
      at("member-rows").rows[first]?.querySelector("button").focus();
    });
  }

  // -- one member -----------------------------------------------------------------------------------------------------

  function listed(pairs) {
    const list = element("dl");
    for (const [name, value] of pairs) if (value && value.length) list.append(element("dt", {}, name), element("dd", {}, value));
    return list;
  }

  function violation(one) {
    const kind = one.stands ? (one.enforcement === "enforce" ? "bad" : "warn") : "soft";
    const word = one.waivedBy ? "waived" : one.enforcement;
    return element("section", { className: "violation" },
      element("h3", {}, badge(word, kind), " ", one.rule),
      element("p", {}, one.what),
      ...(one.evidence.length ? [element("ul", {}, ...one.evidence.map((line) => element("li", {}, line)))] : []),
      listed([["Why", one.why], ["Since", moment(one.since)], ["Due", moment(one.due)], ["To do", one.todo],
        ["Who acts", one.acts], ["What ends it", one.repairs.join(", ")],
        ["Whose part", one.side === "base" ? "the golden image's" : "what came on top of it"],
        ["Waived by", one.waivedBy]]));
  }

  function open(name) {
    const member = members.find((one) => one.name === name);
    if (!member) return;
    const all = violationsOf(member), loud = all.filter((one) => one.stands), quiet = all.filter((one) => !one.stands);
    const facts = packed.facts[member.facts].map(([what, value]) => [texts[what], texts[value]]);
    at("detail-title").textContent = member.name;
    at("detail-body").replaceChildren(...[
      listed([["State", member.rules.join(", ") || member.state], ["Health", member.ill],
        ["Due", moment(member.due)], ["Golden image", `${member.golden} ${member.digest}`], ["Its release is", member.status],
        ["Runs", member.image], ["Runs since", moment(member.began)], ["Checked", moment(member.judged)]]),
      ...(loud.length ? loud.map(violation) : [element("p", { className: "soft" }, "Nothing stands against it.")]),
      ...(quiet.length ? [element("details", {}, element("summary", {}, `${quiet.length} waived or only recorded`),
        ...quiet.map(violation))] : []),
      ...(facts.length ? [element("details", {}, element("summary", {}, "How it runs"), listed(facts))] : []),
      at(`release-${member.release}`) ? element("p", {}, element("button", { type: "button", className: "link",
        "data-unfold": `release-${member.release}` }, "Show its release")) : "",
      element("p", { className: "soft" }, "The whole story: ", element("code", {}, `./goldsmith fleet.explain ${member.name}`)),
    ].filter(Boolean));
    const dialog = at("detail");
    if (!dialog.open) dialog.showModal();
    history.replaceState(null, "", `#member=${encodeURIComponent(member.name)}`);
  }

  function fromAddress() {
    const name = /^#member=(.*)$/.exec(location.hash);
    if (name) open(decodeURIComponent(name[1]));
  }

  // -- what is new ----------------------------------------------------------------------------------------------------

  async function refresh() {
    const answer = await fetch(location.pathname, { cache: "no-store" });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const focused = document.activeElement?.id, unfolded = new Set();
    document.querySelectorAll("main details[open][id]").forEach((one) => unfolded.add(one.id));
    document.querySelector("main").replaceWith(document.adoptNode(page.querySelector("main")));
    at("rows").textContent = page.getElementById("rows").textContent;
    for (const id of unfolded) if (at(id)) at(id).open = true;
    start();
    if (focused && at(focused)) at(focused).focus();
    told("up to date");
  }

  function told(text) { if (at("live")) at("live").textContent = text; }

  function listen() {
    let stamp = document.body.dataset.stamp;
    const events = new EventSource("events");
    events.addEventListener("state", (event) => {
      if (event.data !== stamp) { stamp = event.data; refresh().catch(() => told("cannot be refreshed")); }
      else told("up to date");
    });
    events.addEventListener("error", () => told("no answer, trying again"));
  }

  // A click on a command selects it whole, also without this script.
  async function copy(button) {
    const command = button.previousElementSibling;
    try {
      await navigator.clipboard.writeText(command.textContent);
    } catch {
      getSelection().selectAllChildren(command);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
  }

  function start() {
    document.querySelectorAll(".command").forEach((command) => command.append(element("button",
      { type: "button", className: "copy", "aria-label": `Copy ${command.textContent}` }, "Copy")));
    unpack();
    controls();
    show();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-member]"), release = event.target.closest("[data-release]");
    const folded = event.target.closest("[data-unfold]");
    const copied = event.target.closest("button.copy");
    if (button) open(button.dataset.member);
    if (copied) copy(copied);
    if (folded) {
      at("detail").close();
      at(folded.dataset.unfold).open = true;
      at(folded.dataset.unfold).querySelector("summary").focus();
    }
    if (release) {
      Object.assign(wanted, { search: release.dataset.release, fleet: "", state: "", rule: "", shown: SHOWN });
      at("search").value = wanted.search;
      for (const id of ["by-fleet", "by-state", "by-rule"]) at(id).value = "";
      show();
      at("search").focus();
    }
  });
  document.addEventListener("submit", (event) => event.preventDefault());
  at("close").addEventListener("click", () => at("detail").close());
  at("detail").addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
  window.addEventListener("hashchange", fromAddress);
  window.addEventListener("beforeprint", () => document.querySelectorAll("main details").forEach((one) => { one.open = true; }));
  start();
  fromAddress();
  if ("stamp" in document.body.dataset) listen();
})();
