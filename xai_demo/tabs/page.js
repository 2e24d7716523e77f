// Play a stretch of a player's sound. Its <audio> element lies in the waveform's shadow tree.
const xaiSoundOf = (player) => {
  const roots = [...player.querySelectorAll("*")].map((part) => part.shadowRoot).filter(Boolean);
  return [...roots, player].map((root) => root.querySelector("audio")).find(Boolean);
};
window.xaiPlay = (player, start, end) => {
  const sound = player && xaiSoundOf(player);
  if (!sound) return;
  sound.xaiEnd = end; // of the newest stretch: one that was cut short has no say any more
  if (!sound.xaiWatched) {
    sound.xaiWatched = true;
    sound.addEventListener("timeupdate", () => {
      if (sound.currentTime < sound.xaiEnd) return;
      sound.xaiEnd = Infinity;
      sound.pause();
    });
  }
  sound.currentTime = start;
  sound.play();
};

// The address keeps tab, example and model, so that a shared link and the back button lead back.
window.xaiAddress = (changes) => {
  const address = new URL(window.location);
  const before = address.search;
  for (const [name, value] of Object.entries(changes)) {
    if (value) address.searchParams.set(name, value); else address.searchParams.delete(name);
  }
  if (address.search !== before) history.pushState({}, "", address);
};
const xaiOpenTab = () => {
  const tab = new URLSearchParams(window.location.search).get("tab") || "stethoscope";
  const button = document.getElementById(`tab-${CSS.escape(tab)}-button`);
  if (button && button.getAttribute("aria-selected") !== "true") button.click();
  return tab;
};
window.xaiRestore = () => {
  const wanted = new URLSearchParams(window.location.search).get("example");
  const tab = xaiOpenTab();
  const press = (tries) => {
    const card = document.getElementById(`${tab}-example-${wanted}`);
    if (card) card.click();
    else if (tries > 0) setTimeout(press, 100, tries - 1); // a tab is filled after it is opened
  };
  if (wanted) press(50);
};
window.addEventListener("popstate", xaiOpenTab);
// A double click asks once: Gradio drops a second click only once the first is on its way.
document.addEventListener("click", (event) => {
  const asks = event.target.closest("button[id$='-analyse'], button[id*='-example-']");
  if (asks && event.detail > 1) event.stopPropagation();
}, true);
document.addEventListener("click", (event) => {
  const pressed = event.target.closest("button[id]");
  if (!pressed || !event.isTrusted) return;
  const tab = pressed.id.match(/^tab-(.+)-button$/);
  if (tab) window.xaiAddress({ tab: tab[1], example: null, model: null });
  const card = pressed.id.match(/^(.+)-example-(.+)$/);
  if (card) window.xaiAddress({ tab: card[1], example: card[2] });
});

// Gradio fetches the encoder of a streaming microphone once the microphone is on the page. A Record
// that is pressed before the encoder has come fails without a word: press it again until it has.
const xaiMicrophone = "[id$='-microphone']";
let xaiPressSoon = 0;
window.addEventListener("unhandledrejection", (event) => {
  const box = document.querySelector(xaiMicrophone);
  const button = (name) => box?.querySelector(`.mic-wrap .controls button${name}`);
  const stop = button(":not(.record-button)"); // gone where somebody has stopped it meanwhile
  if (!stop || !/is not a constructor/.test(event.reason?.message)) return;
  xaiPressSoon = setTimeout(() => {
    stop.click();
    xaiPressSoon = setTimeout(() => button(".record-button")?.click(), 20);
  }, 500);
});
// Whoever presses something there meanwhile has the say.
document.addEventListener("click", (event) => {
  if (event.isTrusted && event.target.closest(xaiMicrophone)) clearTimeout(xaiPressSoon);
}, true);
