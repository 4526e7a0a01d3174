// Makes the pages livelier: parts that change by themselves, selection, and keys. Everything works without it, too.

const AT_MOST_EVERY = 1000; // milliseconds between two refreshes, however much happens
const AT_LEAST_EVERY = 15000; // ages and workers change without an event
const POLL_EVERY = 4000; // where no stream can be had

const find = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// What has changed: the page is fetched again, and its live parts are put in place of the old ones.

let refreshed = 0;
let planned = 0;
let fetching = false;

async function refresh() {
  clearTimeout(planned);
  planned = 0;
  if (fetching) return plan();
  fetching = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" });
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of all("[data-live]")) {
        const fresh = page.getElementById(part.id);
        if (fresh && !isSelectedIn(part)) replace(part, fresh);
      }
      document.title = page.title;
    } else if ([401, 403, 404].includes(answer.status)) {
      return stop();
    }
  } catch {
    // The server restarts, or the network is away: the next refresh tells.
  } finally {
    fetching = false;
    refreshed = Date.now();
  }
  if (isLive() && !planned) plan(isStreaming() ? AT_LEAST_EVERY : POLL_EVERY);
}

function plan(after = Math.max(0, refreshed + AT_MOST_EVERY - Date.now())) {
  clearTimeout(planned);
  planned = setTimeout(refresh, after);
}

function replace(old, fresh) {
  const known = new Set(all("[data-row] th a", old).map((link) => link.href));
  const checked = new Set(all("input[type=checkbox]:checked", old).map(keyOf));
  const open = new Map(all("details[data-key]", old).map((one) => [one.dataset.key, one.open]));
  const focused = old.contains(document.activeElement) ? keyOf(document.activeElement) : null;
  const scrolled = all(".scroll", old).map((one) => one.scrollLeft);
  old.replaceWith(fresh);
  for (const box of all("input[type=checkbox]", fresh)) box.checked = checked.has(keyOf(box));
  for (const one of all("details[data-key]", fresh)) one.open = open.get(one.dataset.key) ?? one.open;
  all(".scroll", fresh).forEach((one, place) => (one.scrollLeft = scrolled[place] ?? 0));
  if (known.size)
    for (const row of all("[data-row]", fresh)) {
      const link = find("th a", row);
      if (link && !known.has(link.href)) row.classList.add("fresh");
    }
  dress(fresh);
  if (focused) all("a, button, input, summary", fresh).find((one) => keyOf(one) === focused)?.focus({ preventScroll: true });
}

const keyOf = (element) =>
  [element.tagName, element.id, element.name, element.value, element.getAttribute("href"), element.textContent].join("\n");

function isSelectedIn(part) {
  const selection = getSelection();
  return !selection.isCollapsed && part.contains(selection.anchorNode);
}

// The stream says when something has changed. It is closed while nobody looks.

const button = find("#live");
let stream = null;
let wanted = remembered() !== "paused" && all("[data-live]").length > 0;

const isLive = () => wanted && !document.hidden;
const isStreaming = () => stream !== null && stream.readyState === EventSource.OPEN;

function start() {
  if (!isLive() || stream) return;
  stream = new EventSource(document.body.dataset.stream);
  for (const kind of ["change", "task"]) stream.addEventListener(kind, () => plan());
  stream.onerror = () => {
    if (stream?.readyState === EventSource.CLOSED) stream = null; // refused; else the browser tries again by itself
    if (isLive() && !planned) plan(POLL_EVERY);
  };
}

function stop() {
  stream?.close();
  stream = null;
  clearTimeout(planned);
  planned = 0;
}

function show() {
  button.hidden = all("[data-live]").length === 0;
  button.setAttribute("aria-pressed", String(wanted));
  button.textContent = wanted ? "Live" : "Paused";
  button.title = wanted ? "The page changes by itself. Press to pause it." : "Press to let the page change by itself.";
}

button.addEventListener("click", () => {
  wanted = !wanted;
  remember(wanted ? "live" : "paused");
  show();
  if (wanted) {
    start();
    refresh();
  } else stop();
});

document.addEventListener("visibilitychange", () => {
  if (isLive()) {
    start();
    plan();
  } else stop();
});
addEventListener("pagehide", stop);
addEventListener("pageshow", start);

function remembered() {
  try {
    return localStorage.getItem("afterwards-live");
  } catch {
    return null; // the browser keeps nothing for this site
  }
}

function remember(value) {
  try {
    localStorage.setItem("afterwards-live", value);
  } catch {
    // as above
  }
}

// Selection, and what only a script can do.

function dress(part) {
  for (const one of all("[data-script], #page-all, [data-copy]", part)) one.hidden = false;
  for (const time of all("time", part))
    time.title = `${new Date(time.dateTime).toLocaleString()} here, ${time.title}`;
  count();
}

function count() {
  const form = find("#selection");
  if (!form) return;
  const boxes = all("input[name=id]", form);
  const chosen = boxes.filter((box) => box.checked).length;
  const everything = find("#all", form)?.checked ?? false;
  const page = find("#page-all", form);
  if (!page) return;
  page.checked = chosen === boxes.length;
  page.indeterminate = chosen > 0 && chosen < boxes.length;
  find(".chosen", form).textContent = everything ? "All that match are selected" : `${chosen} selected`;
  for (const act of all("button[name=act]", form)) act.disabled = !everything && chosen === 0;
}

document.addEventListener("change", (event) => {
  if (event.target.id === "page-all")
    for (const box of all("#selection input[name=id]")) box.checked = event.target.checked;
  if (event.target.closest("#selection")) count();
  if (event.target.id === "theme") choose(event.target);
});

async function choose(select) {
  if (select.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = select.value;
  await fetch(select.form.action, { method: "POST", body: new URLSearchParams(new FormData(select.form)), redirect: "manual" });
}

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (!copy) return;
  const source = document.getElementById(copy.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    getSelection().selectAllChildren(source); // plain HTTP has no clipboard: the selected text can be copied
    document.execCommand("copy");
    getSelection().removeAllRanges();
  }
  copy.textContent = "Copied";
});

// Keys.

const help = find("#keys");

function move(by) {
  const links = all("[data-row] th a");
  if (!links.length) return;
  const here = links.findIndex((link) => link.closest("[data-row]").contains(document.activeElement));
  const next = here < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, here + by));
  links[next].focus();
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  x: () => find("input[name=id]", document.activeElement.closest("[data-row]") ?? document.createElement("i"))?.click(),
  r: () => refresh(),
  "?": () => help.showModal(),
  "/": () => {
    const search = find("#search");
    if (search) search.focus();
    else location.assign(find("#to-tasks").href + "#search");
  },
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || typing || help.open) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

const keysButton = find("#keys-button");
keysButton.hidden = false;
keysButton.addEventListener("click", () => help.showModal());
find(".theme button").hidden = true;

show();
dress(document);
start();
if (isLive() && !planned) plan(POLL_EVERY);
if (location.hash === "#search") find("#search")?.focus();
