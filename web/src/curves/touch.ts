/** Fingers on a plot: two zoom, one moves. Up and down the page scrolls, as everywhere. */
export interface Touched {
  /** XColumn in pixels from the left: of one finger, before and now. */
  moved: (before: number, now: number) => void;
  /** Two fingers are so many times as far apart as before; at: what is in the middle of them. */
  spread: (times: number, at: number) => void;
}

const NARROWEST = 24; // pixels between two fingers, below which they are as one

export function touch(over: HTMLElement, { moved, spread }: Touched): void {
  const fingers = new Map<number, number>();
  const leave = ({ pointerId }: PointerEvent): void => void fingers.delete(pointerId);
  over.style.touchAction = 'pan-y';
  over.addEventListener('pointerdown', ({ pointerType, pointerId, clientX }) => {
    if (pointerType === 'touch') fingers.set(pointerId, clientX);
  });
  over.addEventListener('pointerup', leave);
  over.addEventListener('pointercancel', leave);
  over.addEventListener('pointermove', ({ pointerId, clientX }) => {
    if (!fingers.has(pointerId)) return;
    const before = placeOf(fingers);
    fingers.set(pointerId, clientX);
    const now = placeOf(fingers);
    const { left } = over.getBoundingClientRect();
    if (fingers.size > 1) spread(Math.max(NARROWEST, now.apart) / Math.max(NARROWEST, before.apart), before.middle - left);
    moved(before.middle - left, now.middle - left);
  });
}

function placeOf(fingers: ReadonlyMap<number, number>): { middle: number; apart: number } {
  const places = [...fingers.values()];
  const [first, last] = [Math.min(...places), Math.max(...places)];
  return { middle: (first + last) / 2, apart: last - first };
}
