(function () {
  "use strict";
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

  /* Theme: automatic, light, dark. */
  const theme = $("#theme");
  const order = ["auto", "light", "dark"];
  const titles = { auto: "Auto", light: "Light", dark: "Dark" };
  const current = () => document.documentElement.dataset.theme || "auto";
  const showTheme = () => {
    $("span", theme).textContent = titles[current()];
    theme.setAttribute("aria-label", "Colour theme: " + titles[current()].toLowerCase() + "; press to change");
  };
  theme.hidden = false;
  showTheme();
  theme.addEventListener("click", () => {
    const next = order[(order.indexOf(current()) + 1) % 3];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try { localStorage.setItem("fieldmark-theme", next); } catch (error) { /* not kept, then */ }
    showTheme();
  });

  /* Print everything, folded parts too. */
  const print = $("#print");
  print.hidden = false;
  print.addEventListener("click", () => window.print());
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = $$("details:not([open])");
    opened.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((part) => { part.open = false; }));

  /* Where am I in the page. */
  const links = new Map($$(".bar nav a").map((link) => [link.hash.slice(1), link]));
  if ("IntersectionObserver" in window) {
    const watcher = new IntersectionObserver((entries) => {
      entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
        links.forEach((link, id) => {
          if (id === entry.target.id) link.setAttribute("aria-current", "true");
          else link.removeAttribute("aria-current");
        });
      });
    }, { rootMargin: "-15% 0px -75% 0px" });
    links.forEach((link, id) => { const part = document.getElementById(id); if (part) watcher.observe(part); });
  }

  /* Health curves: the value under the pointer, or under the arrow keys. */
  const tip = $("#tip");
  const showTip = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(6, Math.min(innerWidth - box.width - 6, x - box.width / 2)) + "px";
    tip.style.top = Math.max(6, y - box.height - 12) + "px";
  };
  const hideTip = () => { tip.hidden = true; };
  $$("svg.health").forEach((svg) => {
    const dots = $$(".dot", svg);
    let at = dots.length - 1;
    const show = (index) => {
      at = Math.max(0, Math.min(dots.length - 1, index));
      dots.forEach((dot, i) => dot.classList.toggle("on", i === at));
      const box = dots[at].getBoundingClientRect();
      const epoch = dots[at].dataset.e === "0" ? "start" : "epoch " + dots[at].dataset.e;
      showTip(epoch + ": " + dots[at].dataset.v, box.left + box.width / 2, box.top);
    };
    const leave = () => { dots.forEach((dot) => dot.classList.remove("on")); hideTip(); };
    svg.addEventListener("pointermove", (event) => {
      let best = 0, near = Infinity;
      dots.forEach((dot, i) => {
        const box = dot.getBoundingClientRect();
        const far = Math.abs(box.left + box.width / 2 - event.clientX);
        if (far < near) { near = far; best = i; }
      });
      show(best);
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("blur", leave);
    svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) show(at); });
    svg.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") show(at - 1);
      else if (event.key === "ArrowRight") show(at + 1);
      else if (event.key === "Escape") leave();
      else return;
      event.preventDefault();
    });
  });

  /* One of a group of buttons. */
  const choose = (buttons, chosen) =>
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === chosen)));

  /* Neighbour sheets: all, better, worse, same. */
  const filter = $("#neighbours .filters");
  if (filter) {
    filter.hidden = false;
    const buttons = $$("button", filter);
    buttons.forEach((button) => button.addEventListener("click", () => {
      choose(buttons, button);
      const wanted = button.dataset.show;
      $$(".sheet").forEach((sheet) => { sheet.hidden = wanted !== "all" && sheet.dataset.change !== wanted; });
    }));
  }

  /* Copy the recipe. */
  const copy = $("#copy");
  if (copy && navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", () => {
      navigator.clipboard.writeText($("#recipe").textContent).then(
        () => { copy.textContent = "Copied"; setTimeout(() => { copy.textContent = "Copy"; }, 1500); },
        () => { copy.textContent = "Select and copy by hand"; });
    });
  }

  /* The map. */
  const holder = $("#map-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const info = $("#map-info");
  const picture = $(".ph", info);
  const words = $("p", info);
  const panels = $$(".map-panel").map((panel) => {
    const marks = [];
    $$(".pt", panel).forEach((mark) => { marks[+mark.dataset.i] = mark; });
    return { panel, marks, which: panel.dataset.which, svg: $("svg", panel), at: data[panel.dataset.which] };
  });
  const select = $("#map-class");
  const readable = (id) => {
    if (id < 0) return "no label";
    return select ? select.options[id + 1].textContent : data.names[id];
  };
  let hot = -1;

  const showClass = (id) => panels.forEach(({ panel, marks }) => {
    panel.classList.toggle("dim", id >= 0);
    marks.forEach((mark, i) => mark.classList.toggle("same", id >= 0 && data.classes[i] === id));
  });
  const pinned = () => (select ? +select.value : -1);
  const leave = () => {
    if (hot >= 0) panels.forEach(({ marks }) => marks[hot].classList.remove("hot"));
    hot = -1;
    info.hidden = true;
    showClass(pinned());
  };
  const show = (index, source) => {
    if (index === hot) return;
    if (hot >= 0) panels.forEach(({ marks }) => marks[hot].classList.remove("hot"));
    hot = index;
    panels.forEach(({ marks }) => {
      marks[index].classList.add("hot");
      marks[index].parentNode.append(marks[index]);
    });
    showClass(pinned() >= 0 ? pinned() : data.classes[index]);
    const photo = data.photos[index];
    picture.className = "ph" + (photo < 0 ? " none" : " p" + photo);
    picture.style.backgroundImage = photo in data.uris ? "url(" + data.uris[photo] + ")" : "";
    words.replaceChildren();
    const name = document.createElement("strong");
    name.textContent = readable(data.classes[index]);
    const file = document.createElement("span");
    file.textContent = data.ids[index].split("/").pop();
    words.append(name, file);
    info.hidden = false;
    const mark = source.marks[index].getBoundingClientRect();
    const card = info.offsetParent.getBoundingClientRect();
    const box = info.getBoundingClientRect();
    const left = mark.left - card.left + 14;
    info.style.left = Math.max(8, left + box.width > card.width ? left - box.width - 28 : left) + "px";
    info.style.top = Math.max(8, mark.top - card.top - box.height / 2) + "px";
  };
  const nearest = (source, x, y, allowed) => {
    let best = -1, near = Infinity;
    source.at.forEach(([px, py], i) => {
      if (!allowed(px, py, i)) return;
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < near) { near = far; best = i; }
    });
    return [best, near];
  };
  panels.forEach((source) => {
    const under = (event) => {
      const box = source.svg.getBoundingClientRect();
      const scale = data.side / box.width;
      const [index, far] = nearest(source, (event.clientX - box.left) * scale, (event.clientY - box.top) * scale, () => true);
      if (index >= 0 && far < (18 * scale) ** 2) show(index, source); else leave();
    };
    source.svg.addEventListener("pointermove", under);
    source.svg.addEventListener("pointerdown", under);
    source.svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") leave(); });
    source.svg.addEventListener("blur", leave);
    const toward = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    source.svg.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { leave(); return; }
      const way = toward[event.key];
      if (!way) return;
      event.preventDefault();
      if (hot < 0) { show(nearest(source, data.side / 2, data.side / 2, () => true)[0], source); return; }
      const [x, y] = source.at[hot];
      /* Only photos within 45 degrees of the key's direction. */
      const [index] = nearest(source, x, y, (px, py, i) => {
        const along = (px - x) * way[0] + (py - y) * way[1];
        const aside = Math.abs((px - x) * way[1]) + Math.abs((py - y) * way[0]);
        return i !== hot && along > 0 && aside <= along;
      });
      if (index >= 0) show(index, source);
    });
  });
  $(".map-tools").hidden = false;
  if (select) select.addEventListener("change", () => showClass(pinned()));

  const place = (mark, [x, y]) => mark.setAttribute("transform", "translate(" + x.toFixed(1) + " " + y.toFixed(1) + ")");
  /* Photos travel from where the other encoder put them. */
  const travel = (panel, from) => {
    if (still) { panel.marks.forEach((mark, i) => place(mark, panel.at[i])); return; }
    const begin = performance.now();
    const frame = (now) => {
      const t = Math.min(1, (now - begin) / 900);
      const e = t < 0.5 ? 4 * t ** 3 : 1 - (2 - 2 * t) ** 3 / 2;
      panel.marks.forEach((mark, i) => place(mark, [
        from[i][0] + (panel.at[i][0] - from[i][0]) * e,
        from[i][1] + (panel.at[i][1] - from[i][1]) * e,
      ]));
      if (t < 1) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  };
  const buttons = $$("[data-map]");
  const body = $(".map-body");
  const showMap = (wanted) => {
    leave();
    body.classList.toggle("twice", wanted === "both");
    panels.forEach((panel) => {
      const hidden = wanted !== "both" && wanted !== panel.which;
      const fresh = panel.panel.hidden || wanted !== "both";
      panel.panel.hidden = hidden;
      if (!hidden && fresh && wanted !== "both") travel(panel, data[panel.which === "start" ? "trained" : "start"]);
      else panel.marks.forEach((mark, i) => place(mark, panel.at[i]));
    });
  };
  buttons.forEach((button) => button.addEventListener("click", () => {
    choose(buttons, button);
    showMap(button.dataset.map);
  }));
})();
