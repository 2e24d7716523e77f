// Play a stretch of a player's sound: the player keeps an <audio> element, sometimes out of sight.
window.xaiPlay = (player, start, end) => {
  const sound = player && player.querySelector("audio");
  if (!sound) return;
  sound.currentTime = start;
  sound.play();
  const stop = () => {
    if (sound.currentTime < end) return;
    sound.pause();
    sound.removeEventListener("timeupdate", stop);
  };
  sound.addEventListener("timeupdate", stop);
};
