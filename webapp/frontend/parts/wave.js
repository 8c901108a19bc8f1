// A sound on the stage: its waveform, played, looked into and gone through by keys. A chunk of its own, loaded when a sound is shown.
import WaveSurfer from "wavesurfer.js";
import { make, text } from "./page.js";
import { adopt } from "./style.js";
import css from "./wave.css" with { type: "text" };

const MOST_PX_PER_S = 4000;

adopt(document, css);

export class Wave {
  /** Shows `item` in `holder`; `asked`: {ready(), moved()}; `plugins` of wavesurfer. */
  constructor(holder, item, asked = {}, plugins = []) {
    Object.assign(this, { holder, asked, isReady: false });
    const name = `${text("item")} ${item.name ?? item.item_id ?? ""}`;
    this.audio = make("audio", { controls: true, preload: "auto", "aria-label": name });
    this.clock = make("p", { class: "muted wave-clock" });
    const place = make("div", { class: "wave-place" });
    this.box = make("div", { class: "wave", tabindex: 0, role: "region", "aria-label": name }, place, this.clock, this.audio);
    // wavesurfer puts a style element into its shadow root; made outside the document and taken over as a constructed sheet,
    // it needs no exception in the content security policy
    const colours = getComputedStyle(holder);
    this.surfer = WaveSurfer.create({
      container: place,
      media: this.audio,
      height: 128,
      waveColor: colours.getPropertyValue("--pico-muted-color").trim() || "#777",
      progressColor: colours.getPropertyValue("--pico-primary").trim() || "#06c",
      cursorColor: colours.getPropertyValue("--pico-color").trim() || "#000",
      cursorWidth: 2,
      dragToSeek: !plugins.length,
      plugins,
    });
    const root = this.surfer.getWrapper().getRootNode();
    const style = root.querySelector("style");
    adopt(root, style.textContent);
    style.remove();
    holder.replaceChildren(this.box);
    this.surfer.on("ready", () => this.#ready());
    this.surfer.on("timeupdate", () => this.#tick());
    this.surfer.on("error", (error) => this.#broken(error));
    this.surfer.load(item.media).catch((error) => this.#broken(error));
  }

  get seconds() {
    return this.surfer.getDuration() || this.audio.duration || 0;
  }

  /** Where it is, or where it is on its way to: the next key counts from there, however slow the browser is to go there. */
  get now() {
    return this.audio.seeking && this.aim != null ? this.aim : this.surfer.getCurrentTime();
  }

  /** Play, or pause. */
  toggle() {
    this.surfer.playPause().catch((error) => this.#broken(error));
  }

  seek(seconds) {
    this.aim = Math.min(this.seconds, Math.max(0, seconds));
    this.surfer.setTime(this.aim);
    // while an earlier seek is on its way wavesurfer only notes this one, and that seek's own event makes it forget the note
    if (this.audio.currentTime !== this.aim) this.audio.currentTime = this.aim;
    this.#tick();
  }

  play(from, to) {
    this.surfer.play(from, to).catch((error) => this.#broken(error));
  }

  fit() {
    if (this.isReady) this.surfer.zoom(0);
  }

  zoom(factor) {
    if (!this.isReady) return;
    const fitted = this.box.clientWidth / this.seconds;
    const scale = Math.max(fitted, this.surfer.options.minPxPerSec) * factor;
    this.surfer.zoom(scale <= fitted ? 0 : Math.min(MOST_PX_PER_S, scale));
  }

  move(dx) {
    this.surfer.setScroll(Math.max(0, this.surfer.getScroll() - dx));
  }

  /** The keys of a sound; true = taken. */
  key(event) {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input, audio")) return false;
    if (key === "p") this.toggle();
    else if (key === "arrowleft" || key === "arrowright") this.seek(this.now + (key === "arrowleft" ? -1 : 1) * (event.shiftKey ? 5 : 0.5));
    else if (key === "home" || key === "end") this.seek(key === "home" ? 0 : this.seconds);
    else return false;
    return true;
  }

  keys() {
    return [
      ["P", text("key_play")],
      ["← →", text("key_seek")],
    ];
  }

  close() {
    this.isClosed = true;
    this.audio.pause();
    this.surfer.destroy();
  }

  #ready() {
    if (this.isClosed) return;
    this.isReady = true;
    this.box.dataset.ready = "";
    this.#tick();
    this.asked.ready?.();
  }

  #tick() {
    this.clock.textContent = `${this.now.toFixed(2)} / ${this.seconds.toFixed(2)} s`;
    this.asked.moved?.();
  }

  /** The sound cannot be read: say so, and leave the browser's own player there. */
  #broken(error) {
    if (this.isClosed || error?.name === "AbortError") return;
    this.clock.textContent = text("broken_sound");
    this.box.classList.add("broken");
  }
}
