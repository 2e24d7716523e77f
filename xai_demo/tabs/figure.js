// Runs once for each result area, with `element` as its root. Nothing here sends a request.
const setOpacity = (percent) => {
  element.querySelectorAll(".xai-figure, .xai-comparison, .xai-gallery").forEach((part) => {
    part.style.setProperty("--heat", percent / 100);
  });
};
// The page is sent each image once; copies and thumbnails are filled in here.
const fillCopies = () => {
  const figure = element.querySelector(".xai-figure");
  if (!figure) return;
  const base = figure.querySelector(".xai-pane-heat .xai-base");
  element.querySelectorAll(".xai-copy").forEach((copy) => { copy.src = base.src; });
  element.querySelectorAll("[data-heat]").forEach((copy) => {
    copy.src = figure.querySelector(`[data-layer="${copy.dataset.heat}"] .xai-heat`).src;
  });
  const slider = figure.querySelector(".xai-strength input");
  if (slider) setOpacity(slider.value);
};
const showLabel = (index) => {
  element.querySelectorAll(".xai-figure [data-layer]").forEach((part) => {
    part.hidden = part.dataset.layer !== index;
    if (!part.hidden && part.dataset.alt) {
      element.querySelector(".xai-pane-heat .xai-plot").setAttribute("aria-label", part.dataset.alt);
    }
  });
  element.querySelectorAll("[data-target]").forEach((bar) => {
    bar.setAttribute("aria-pressed", String(bar.dataset.target === index));
  });
};
const setView = (name) => {
  element.querySelector(".xai-figure").dataset.view = name;
  element.querySelectorAll("[data-show]").forEach((button) => {
    button.setAttribute("aria-pressed", String(button.dataset.show === name));
  });
};
const toggleLungs = (button) => {
  const isShown = element.querySelector(".xai-figure").toggleAttribute("data-lungs-shown");
  button.setAttribute("aria-pressed", String(isShown));
};
const enlarge = () => {
  setView("slide");
  const reducesMotion = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const large = element.querySelector(".xai-wipe-frame");
  large.scrollIntoView({ behavior: reducesMotion ? "auto" : "smooth", block: "center" });
  // Focusing would otherwise jump there and break off the smooth scrolling.
  large.querySelector(".xai-wipe").focus({ preventScroll: true });
};
// The choice next to the file, which is the one that counts.
const readAs = (age) => {
  const task = element.closest("[id$='-result']").id.replace(/-result$/, "");
  document.querySelector(`#${task}-age input[value="${age}"]`)?.click();
};
const play = (start, end) => {
  const name = element.closest("[id$='-result']").id.replace(/-result$/, "-original");
  window.xaiPlay(document.getElementById(name), start, end);
};
// On the root, because every answer replaces what is inside.
element.addEventListener("click", (event) => {
  const pressed = event.target.closest("button, tr[data-start], [data-seek]");
  if (!pressed) return;
  if (pressed.dataset.seek !== undefined) {
    const place = pressed.getBoundingClientRect();
    // A key press has no position: play from the start.
    const share = event.detail ? (event.clientX - place.left) / place.width : 0;
    play(share * pressed.dataset.seek, Infinity);
  }
  if (pressed.dataset.target !== undefined) showLabel(pressed.dataset.target);
  if (pressed.dataset.lungs !== undefined) toggleLungs(pressed);
  if (pressed.dataset.enlarge !== undefined) enlarge();
  if (pressed.dataset.age !== undefined) readAs(pressed.dataset.age);
  if (pressed.dataset.show !== undefined) setView(pressed.dataset.show);
  if (pressed.dataset.start !== undefined) play(+pressed.dataset.start, +pressed.dataset.end);
});
// Adds a lane for one label of many; timeline.py describes the bytes (_packed_probabilities).
const addLane = (field) => {
  const index = field.dataset.names.split("|").indexOf(field.value);
  const axes = element.querySelector(".xai-timeline .xai-axes");
  if (index < 0 || axes.querySelector(`[data-lane="${index}"]`)) return;
  const bytes = Uint8Array.from(atob(field.dataset.find), (each) => each.charCodeAt(0));
  const count = bytes[0] + 256 * bytes[1];
  let path = "", start = 0;
  for (let i = 0; i < count; i += 1) {
    // 65535 is the end of the recording, 1000 the width of the drawing.
    const end = (bytes[2 + 2 * i] + 256 * bytes[3 + 2 * i]) / 65.535;
    const height = 100 - (100 * bytes[2 + 2 * count + index * count + i]) / 255;
    path += `M${start.toFixed(1)} 100V${height.toFixed(1)}H${end.toFixed(1)}V100Z`;
    start = end;
  }
  const name = document.createElement("span");
  const lane = document.createElement("div");
  Object.assign(name, { className: "xai-lane-name", textContent: field.value });
  lane.className = "xai-lane xai-band";
  Object.assign(lane.dataset, { lane: index, seek: axes.querySelector("[data-seek]").dataset.seek });
  lane.style.setProperty("--lane", "var(--xai-accent)");
  lane.innerHTML = `<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true"><path d="${path}"/></svg>`;
  // Above the time axis, below the other lanes.
  axes.querySelector(":scope > .xai-axis-x").before(name, lane);
  field.value = "";
};
element.addEventListener("input", (event) => {
  if (event.target.dataset.find !== undefined) addLane(event.target);
  if (event.target.type !== "range") return;
  if (event.target.dataset.zoom !== undefined) {
    const section = event.target.closest(".xai-timeline");
    section.style.setProperty("--zoom", event.target.value);
    // Half of _CLOSE_ZOOM in timeline.py.
    section.toggleAttribute("data-close", event.target.value >= 4);
    return;
  }
  if (event.target.matches(".xai-wipe")) {
    event.target.parentElement.style.setProperty("--wipe", `${event.target.value}%`);
    return;
  }
  setOpacity(event.target.value);
});
watch("value", () => {
  fillCopies();
  const result = element.querySelector(".xai-result");
  if (!result || result.dataset.state === "empty") return;
  // The notice on an image that the gate stopped stands above the result.
  const name = element.closest("[id$='-result']").id.replace(/-result$/, "-gate");
  const gate = document.getElementById(name);
  const first = gate && gate.offsetParent ? gate : result;
  const top = first.getBoundingClientRect().top;
  // Do not scroll where the result is in view already.
  if (top < window.innerHeight * 0.7 && top > -40) return;
  const reducesMotion = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  first.scrollIntoView({ behavior: reducesMotion ? "auto" : "smooth", block: "start" });
});
fillCopies();
