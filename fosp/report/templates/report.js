// Moves the cursor of the traces with the video above them, and the video with clicks into the traces.
for (const player of document.querySelectorAll("figure.player")) {
  const video = player.querySelector("video");
  const svg = player.querySelector("svg.traces");
  const { rows, fps, readings } = JSON.parse(player.querySelector("script").textContent);
  const cursor = svg.querySelector(".cursor");
  const texts = [...svg.querySelectorAll(".reading")];
  const left = Number(svg.dataset.left), right = Number(svg.dataset.right);

  const show = (seconds) => {
    const x = left + (right - left) * Math.min(1, seconds * fps / rows);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    // A frame is on screen from its own time stamp on; the small term absorbs rounding of that stamp.
    const row = Math.min(rows - 1, Math.max(0, Math.floor(seconds * fps + 1e-3)));
    for (const text of texts) text.textContent = readings[text.dataset.trace][row];
  };
  const seek = (seconds) => {
    if (video) video.currentTime = seconds;
    show(seconds);
  };
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const part = Math.min(1, Math.max(0, (x - left) / (right - left)));
    seek(part * (rows - 1) / fps);
  });
  for (const button of player.querySelectorAll("[data-seek]")) {
    button.addEventListener("click", () => seek(Number(button.dataset.seek) + 1e-3));
  }
  if (video) {
    const follow = () => {
      show(video.currentTime);
      if (!video.paused && !video.ended) requestAnimationFrame(follow);
    };
    for (const name of ["play", "timeupdate", "seeked", "ended"]) video.addEventListener(name, follow);
  }
  show(0);
}
