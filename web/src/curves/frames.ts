/** At most one drawing per frame, however much comes; none at all while the page is hidden, and one when it is back. */
export interface Frames {
  /** Something has changed since the last drawing. */
  mark: () => void;
  stop: () => void;
}

export function frames(draw: () => void): Frames {
  let asked = 0;
  return {
    mark: () => {
      asked ||= requestAnimationFrame(() => {
        asked = 0;
        draw();
      });
    },
    stop: () => cancelAnimationFrame(asked),
  };
}
