/** Colours along which a number is seen: viridis (Smith & van der Walt 2015), the part of it that either ground lets see. */
const STOPS = {
  light: ['#440154', '#482475', '#414487', '#355f8d', '#2a788e', '#21918c', '#22a884', '#44a84f', '#7d9b17'],
  dark: ['#8a63c9', '#6a78d1', '#4f92cf', '#35a8c0', '#2bbba2', '#45cc80', '#7ad151', '#bddf26', '#fde725'],
} as const;

/** How something is painted: in the colour with this number, or at a place on the ramp instead; null: grey, it has none. */
export interface Paint {
  colour: number;
  shade?: number | null;
}

export const COLOURS = 8;
const DASHES = [undefined, [7, 4], [2, 3]];

/** Dashes that tell curves of the same colour apart; of a place on the ramp there are none. */
export function dashOf({ colour, shade }: Paint): number[] | undefined {
  return shade === undefined ? DASHES[Math.floor(colour / COLOURS) % DASHES.length] : undefined;
}

/**
 * By curve the number of its colour; drawn: whether it is in the chart. Those that are have different ones as long as
 * there are enough: a curve whose own colour is taken has one that is free.
 */
export function coloursOf(drawn: readonly boolean[]): number[] {
  const numbers = [...drawn.keys()];
  const together = numbers.filter((number) => drawn[number]);
  const own = new Map<number, number>(); // by colour, the first curve that it belongs to
  for (const number of together) if (!own.has(number % COLOURS)) own.set(number % COLOURS, number);
  // From the last one on: the first ones are kept for curves that are drawn next.
  const free = Array.from({ length: Math.max(COLOURS, together.length) }, (_, colour) => colour).filter((colour) => !own.has(colour));
  return numbers.map((number) => {
    if (!drawn[number]) return number;
    return own.get(number % COLOURS) === number ? number % COLOURS : free.pop()!;
  });
}

/** What it is painted with. token: the theme's colour of this name. */
export function inkOf({ colour, shade }: Paint, token: (name: string) => string, dark: boolean): string {
  if (shade === undefined) return token(`curve-${(colour % COLOURS) + 1}`);
  return shade === null ? token('line-strong') : shadeOf(shade, dark);
}

/** The stops as text, for a CSS gradient. */
export function stopsOf(dark: boolean): readonly string[] {
  return STOPS[dark ? 'dark' : 'light'];
}

/** The colour at a place from 0 to 1. */
export function shadeOf(place: number, dark: boolean): string {
  const stops = stopsOf(dark);
  const at = Math.max(0, Math.min(1, place)) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const [from, to] = [channelsOf(stops[low]!), channelsOf(stops[low + 1]!)];
  const mixed = from.map((channel, index) => Math.round(channel + (at - low) * (to[index]! - channel)));
  return `#${mixed.map((channel) => channel.toString(16).padStart(2, '0')).join('')}`;
}

function channelsOf(colour: string): number[] {
  return [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));
}
