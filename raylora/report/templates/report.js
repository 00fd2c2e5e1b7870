"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);
  all(".script").forEach((part) => { part.hidden = false; });

  // Light and dark: the system's, until somebody chooses.
  const root = document.documentElement;
  const button = one("#theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const tellTheme = () => button.setAttribute("aria-pressed", String(isDark()));
  const kept = (value) => {
    try {
      if (value) localStorage.setItem("raylora-theme", value);
      return localStorage.getItem("raylora-theme");
    } catch { return null; } // a page opened from a disk may not be allowed to keep anything
  };
  if (["light", "dark"].includes(kept())) root.dataset.theme = kept();
  tellTheme();
  system.addEventListener("change", tellTheme);
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    kept(root.dataset.theme);
    tellTheme();
  });

  // Tabs: arrows, Home and End move between them.
  const tabs = all("[role=tab]");
  const show = (tab) => tabs.forEach((other) => {
    const isShown = other === tab;
    other.setAttribute("aria-selected", String(isShown));
    other.tabIndex = isShown ? 0 : -1;
    const panel = document.getElementById(other.getAttribute("aria-controls"));
    panel.hidden = !isShown;
    one(`#${panel.id} .panel-name`).hidden = true;
  });
  tabs.forEach((tab, at) => {
    tab.addEventListener("click", () => show(tab));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = tabs[(to + tabs.length) % tabs.length];
      show(next);
      next.focus();
    });
  });
  if (tabs.length) show(tabs[0]);

  // Copying; a page without a clipboard selects the text, so that a key copies it.
  all(".copy").forEach((copy) => copy.addEventListener("click", async () => {
    const code = copy.closest(".piece").querySelector("code");
    let done = true;
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code);
      done = document.execCommand("copy");
    }
    copy.textContent = done ? "Copied" : "Press Ctrl+C";
    one("#copied").textContent = done ? "Copied" : "Selected; press Ctrl+C to copy";
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  }));

  // The step that all trials' samples show: each its latest one until then.
  const slider = one("#step");
  if (slider) {
    const steps = slider.dataset.steps.split(",").map(Number);
    const move = () => {
      const now = steps[Number(slider.value)];
      slider.setAttribute("aria-valuetext", `${now} images`);
      one(".slider output").textContent = now.toLocaleString("en");
      all(".strip[data-trial]").forEach((strip) => {
        const parts = all(".step", strip);
        const seen = parts.filter((part) => Number(part.dataset.at) <= now);
        const last = seen[seen.length - 1] || parts[0];
        parts.forEach((part) => { part.hidden = part !== last; });
        const at = Number(last.dataset.at);
        const after = strip.querySelector(".after");
        const isOver = last === parts[parts.length - 1] && at < now;
        after.textContent = `${at.toLocaleString("en")} images${isOver ? `, ${after.dataset.end}` : ""}`;
        strip.classList.toggle("early", isOver || at > now);
      });
    };
    slider.addEventListener("input", move);
    move();
  }

  // Trials that are brought out: the same colour in every chart.
  const PICKS = 8;
  const boxes = all(".choice input");
  const colours = new Map();
  all(".choice.on, .bring.on").forEach((part) => {
    colours.set(part.dataset.trial, Number([...part.classList].find((name) => name.startsWith("pick-")).slice(5)));
  });
  const colour = (trial, isOn) => {
    if (isOn && !colours.has(trial)) {
      const used = new Set(colours.values());
      const free = [...Array(PICKS).keys()].find((number) => !used.has(number));
      colours.set(trial, free === undefined ? colours.size % PICKS : free);
    }
    const number = colours.get(trial);
    if (!isOn) colours.delete(trial);
    all("svg [data-trial], .choice, .bring").filter((part) => part.dataset.trial === trial).forEach((part) => {
      [...Array(PICKS).keys()].forEach((other) => part.classList.remove(`pick-${other}`));
      part.classList.toggle("on", isOn);
      if (isOn) part.classList.add(`pick-${number}`);
      if (part.matches(".bring")) part.setAttribute("aria-pressed", String(isOn));
    });
    boxes.filter((box) => box.value === trial).forEach((box) => { box.checked = isOn; });
  };
  boxes.forEach((box) => {
    box.checked = colours.has(box.value); // a browser that goes back remembers other ticks
    box.addEventListener("change", () => colour(box.value, box.checked));
  });
  // Every trial by its row in the table, also one that has no box, and by its marks.
  const turn = (part) => colour(part.dataset.trial, !colours.has(part.dataset.trial));
  all(".bring").forEach((bring) => {
    bring.disabled = false;
    bring.setAttribute("aria-pressed", String(colours.has(bring.dataset.trial)));
    bring.addEventListener("click", () => turn(bring));
  });
  all("svg [data-trial]").forEach((part) => part.addEventListener("click", () => turn(part)));

  // Sorting: a trial's rows stay together; what has no value comes last.
  const compare = (a, b) => {
    if (a === "" || b === "") return null;
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  };
  all(".sortable").forEach((table) => {
    const heads = all("thead th", table);
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const value = (body) => {
        const text = body.rows[0].cells[column].dataset.value || "";
        return text === "–" ? "" : text;
      };
      const sign = order === "ascending" ? 1 : -1;
      const sorted = [...table.tBodies].sort((a, b) => {
        const found = compare(value(a), value(b));
        return found === null ? (value(a) === "") - (value(b) === "") : sign * found;
      });
      table.append(...sorted);
    }));
  });
})();
