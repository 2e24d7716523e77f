// Gradio's drop zone takes what browsers call audio/*, but they call a .webm or .3gp video and an
// .amr nothing. The server looks into the file, whatever it is called.
const xaiSound = /\.(wav|wave|aiff?|aifc|flac|og[ga]|opus|mp3|m4a|mp4|mov|3gp|webm|mk[av]|amr|aac|caf|au|w64|wma)$/i;
const xaiType = Object.getOwnPropertyDescriptor(Blob.prototype, "type");
Object.defineProperty(File.prototype, "type", {
  get() {
    const type = xaiType.get.call(this);
    return type.startsWith("audio/") || !xaiSound.test(this.name) ? type : "audio/x-unknown";
  },
});

// Play a stretch of a player's sound. Gradio's <audio> element is in the waveform's shadow tree.
const xaiAudioOf = (player) => {
  const roots = [...player.querySelectorAll("*")].map((node) => node.shadowRoot).filter(Boolean);
  return [...roots, player].map((root) => root.querySelector("audio")).find(Boolean);
};
window.xaiPlay = (player, start, end) => {
  const sound = player && xaiAudioOf(player);
  if (!sound) return;
  // Only the newest stretch ends the sound, so that an earlier, interrupted one cannot.
  sound.xaiEnd = end;
  if (!sound.xaiHasListener) {
    sound.xaiHasListener = true;
    sound.addEventListener("timeupdate", () => {
      if (sound.currentTime < sound.xaiEnd) return;
      sound.xaiEnd = Infinity;
      sound.pause();
    });
  }
  sound.currentTime = start;
  sound.play();
};

// The address holds tab, example and model, for shared links and for the back button.
window.xaiAddress = (changes) => {
  const address = new URL(window.location);
  const before = address.search;
  for (const [name, value] of Object.entries(changes)) {
    if (value) address.searchParams.set(name, value); else address.searchParams.delete(name);
  }
  // An entry for an unchanged address would make the back button do nothing.
  if (address.search !== before) history.pushState({}, "", address);
};
const xaiOpenTab = () => {
  const tab = new URLSearchParams(window.location.search).get("tab") || "stethoscope";
  const button = document.getElementById(`tab-${CSS.escape(tab)}-button`);
  if (button && button.getAttribute("aria-selected") !== "true") button.click();
  return tab;
};
window.xaiRestore = () => {
  const example = new URLSearchParams(window.location.search).get("example");
  const tab = xaiOpenTab();
  const press = (tries) => {
    const card = document.getElementById(`${tab}-example-${example}`);
    if (card) card.click();
    // Gradio fills a tab only after it is opened.
    else if (tries > 0) setTimeout(press, 100, tries - 1);
  };
  // For at most five seconds.
  if (example) press(50);
};
window.addEventListener("popstate", xaiOpenTab);
// A double click is one request: Gradio drops a second click only once the first has been sent.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[id$='-analyse'], button[id*='-example-']");
  if (button && event.detail > 1) event.stopPropagation();
}, true);
document.addEventListener("click", (event) => {
  const pressed = event.target.closest("button[id]");
  // Only what the visitor presses changes the address, not what xaiRestore presses.
  if (!pressed || !event.isTrusted) return;
  const tab = pressed.id.match(/^tab-(.+)-button$/);
  if (tab) window.xaiAddress({ tab: tab[1], example: null, model: null });
  const card = pressed.id.match(/^(.+)-example-(.+)$/);
  if (card) window.xaiAddress({ tab: card[1], example: card[2] });
});

// Gradio loads the encoder of a streaming microphone after the microphone is on the page. Pressing
// Record before the encoder has loaded fails silently, so press it again until it works.
const xaiMicrophone = "[id$='-microphone']";
let xaiRetry = 0;
window.addEventListener("unhandledrejection", (event) => {
  const box = document.querySelector(xaiMicrophone);
  const button = (name) => box?.querySelector(`.mic-wrap .controls button${name}`);
  // There is no Stop button if the visitor has stopped the recording in the meantime.
  const stop = button(":not(.record-button)");
  if (!stop || !/is not a constructor/.test(event.reason?.message)) return;
  xaiRetry = setTimeout(() => {
    stop.click();
    xaiRetry = setTimeout(() => button(".record-button")?.click(), 20);
  }, 500);
});
// A click by the visitor takes precedence, also over a recorder that is just about to start.
let xaiIsWanted = false;
document.addEventListener("click", (event) => {
  const box = event.isTrusted && event.target.closest(xaiMicrophone);
  if (!box) return;
  clearTimeout(xaiRetry);
  const pressed = event.target.closest(".mic-wrap .controls button");
  if (pressed) xaiIsWanted = pressed.matches(".record-button");
}, true);

// On a busy machine a browser may give a microphone that never delivers a sound, and Gradio's recorder
// says nothing. So a recording that has sent nothing for a while is started anew.
const xaiSilentMs = 6000, xaiUnansweredMs = 20000, xaiMostRestarts = 5;
const xaiListening = { began: 0, chunks: 0, restarts: 0, answer: null };
let xaiChunks = 0;
new PerformanceObserver((list) => {
  xaiChunks += list.getEntries().filter((entry) => /\/upload(\?|$)/.test(entry.name)).length;
}).observe({ type: "resource" });
setInterval(() => {
  const box = document.querySelector(xaiMicrophone);
  const button = (name) => box?.querySelector(`.mic-wrap .controls button${name}`);
  const stop = button(":not(.record-button):not(.spinner-button)");
  const answer = document.querySelector(".xai-live")?.dataset.received ?? null;
  const listening = xaiListening;
  if (!stop || !stop.offsetParent) {
    listening.began = 0;
    return;
  }
  // The visitor pressed Stop while the recorder was starting, which Gradio does not hear.
  if (!xaiIsWanted) {
    stop.click();
    return;
  }
  if (!listening.began) {
    Object.assign(listening, { began: Date.now(), chunks: xaiChunks, answer });
    return;
  }
  // Once it has been answered, it is Gradio's to go on.
  if (answer !== listening.answer) {
    listening.restarts = 0;
    listening.began = Infinity;
  }
  const patience = xaiChunks > listening.chunks ? xaiUnansweredMs : xaiSilentMs;
  if (Date.now() - listening.began < patience || listening.restarts >= xaiMostRestarts) return;
  listening.restarts += 1;
  listening.began = 0;
  stop.click();
  xaiRetry = setTimeout(() => button(".record-button")?.click(), 300);
}, 1000);

// Gradio's own script warns of this after every upload, though nothing is missing.
const xaiWarn = console.warn.bind(console);
console.warn = (...words) => {
  if (words[0] !== "Method not implemented.") xaiWarn(...words);
};
