// An image that can be zoomed, moved and fitted by mouse, touch and keys. Small images are enlarged without blur.

const MOST = 120;

/** Shows `url` in `holder`; `fit`, `zoom(factor)` and `move(dx, dy)` change the view. */
export class Picture {
  constructor(holder, url, alt) {
    this.holder = holder;
    this.image = new Image();
    this.image.alt = alt;
    this.image.draggable = false;
    this.image.addEventListener("load", () => this.fit());
    this.image.addEventListener("error", () => holder.classList.add("broken"));
    this.image.src = url;
    holder.replaceChildren(this.image);
    holder.onwheel = (event) => {
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
    };
    holder.onpointerdown = (event) => {
      holder.setPointerCapture(event.pointerId);
      holder.onpointermove = (move) => this.move(move.movementX, move.movementY);
    };
    holder.ondblclick = () => this.fit();
    holder.onpointerup = holder.onpointercancel = () => {
      holder.onpointermove = null;
    };
    this.fit();
  }

  fit() {
    const { naturalWidth: width, naturalHeight: height } = this.image;
    if (!width) return;
    this.image.classList.toggle("tiny", Math.max(width, height) <= 64);
    const share = Math.min(this.holder.clientWidth / width, this.holder.clientHeight / height) * 0.96;
    Object.assign(this, { scale: Math.min(share, MOST), x: 0, y: 0 });
    this.draw();
  }

  zoom(factor) {
    this.scale = Math.min(MOST, Math.max(0.02, (this.scale ?? 1) * factor));
    this.draw();
  }

  move(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.draw();
  }

  draw() {
    this.image.style.transform = `translate(-50%, -50%) translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
  }
}
