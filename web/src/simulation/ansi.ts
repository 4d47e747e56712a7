/**
 * A program's colours (SGR, ECMA-48 8.3.117) as names of classes: text from a program is never HTML nor a style.
 *
 * Six hues, each readable in both themes; 256 and 16 million colours take the nearest. Black, white and backgrounds are
 * left out: which of them can be read depends on the theme.
 */

export interface Run {
  text: string;
  /** Classes, separated by blanks; empty: as the line is. */
  look: string;
}

type Hue = 'red' | 'green' | 'yellow' | 'blue' | 'magenta' | 'cyan' | 'dim' | '';

const SEQUENCE = /\x1b\[([0-9;:]{0,48})m|\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])?/g;
const HUES: readonly Hue[] = ['', 'red', 'green', 'yellow', 'blue', 'magenta', 'cyan', ''];
const GREY = 48; // of 255: the least difference of a colour's parts that makes it a hue

class Look {
  hue: Hue = '';
  bold = false;
  faint = false;
  italic = false;
  underlined = false;

  get classes(): string {
    const hue = this.hue || (this.faint ? 'dim' : '');
    return [hue, this.bold && 'bold', this.italic && 'italic', this.underlined && 'underlined'].filter(Boolean).join(' ');
  }

  apply(parameters: string): void {
    const codes = parameters.split(/[;:]/).map(Number);
    for (let at = 0; at < codes.length; at++) {
      const code = codes[at]!;
      if (code === 0) Object.assign(this, new Look());
      else if (code === 1) this.bold = true;
      else if (code === 2) this.faint = true;
      else if (code === 3) this.italic = true;
      else if (code === 4) this.underlined = true;
      else if (code === 22) this.bold = this.faint = false;
      else if (code === 23) this.italic = false;
      else if (code === 24) this.underlined = false;
      else if (code === 39) this.hue = '';
      else if (code >= 30 && code <= 37) this.hue = HUES[code - 30]!;
      else if (code >= 90 && code <= 97) this.hue = brightOf(code - 90);
      else if (code === 38 || code === 48 || code === 58) {
        const { hue, taken } = extended(codes.slice(at + 1), parameters.includes(':'));
        if (code === 38) this.hue = hue;
        at += taken;
      }
    }
  }
}

/** A line in stretches of one look, without any escape sequence. */
export function runsOf(line: string): Run[] {
  const look = new Look();
  const runs: Run[] = [];
  let at = 0;
  const add = (text: string): void => {
    if (text) runs.push({ text, look: look.classes });
  };
  for (const found of line.matchAll(SEQUENCE)) {
    add(line.slice(at, found.index));
    at = found.index + found[0].length;
    if (found[1] !== undefined) look.apply(found[1]);
  }
  add(line.slice(at));
  return runs;
}

/** 5;N and 2;R;G;B, with colons 2::R:G:B too; how many parameters they took. */
function extended(codes: readonly number[], colons: boolean): { hue: Hue; taken: number } {
  if (codes[0] === 5) return { hue: hueOf256(codes[1] ?? 0), taken: 2 };
  if (codes[0] !== 2) return { hue: '', taken: codes.length };
  const first = colons && codes.length > 4 ? 2 : 1; // with colons a colour space stands before
  return { hue: hueOf(codes[first] ?? 0, codes[first + 1] ?? 0, codes[first + 2] ?? 0), taken: first + 3 };
}

function brightOf(number: number): Hue {
  return number === 0 ? 'dim' : HUES[number]!;
}

function hueOf256(number: number): Hue {
  if (number < 8) return HUES[number] ?? '';
  if (number < 16) return brightOf(number - 8);
  if (number > 231) return number > 238 && number < 250 ? 'dim' : '';
  const part = (place: number): number => (Math.floor((number - 16) / place) % 6) * 51;
  return hueOf(part(36), part(6), part(1));
}

/** The nearest of the six, by the angle of the colour wheel. */
function hueOf(red: number, green: number, blue: number): Hue {
  const most = Math.max(red, green, blue);
  const range = most - Math.min(red, green, blue);
  if (!(range >= GREY)) return '';
  const sixth = most === red ? ((green - blue) / range + 6) % 6 : most === green ? (blue - red) / range + 2 : (red - green) / range + 4;
  const degrees = sixth * 60;
  if (degrees < 20 || degrees >= 340) return 'red';
  if (degrees < 70) return 'yellow';
  if (degrees < 160) return 'green';
  if (degrees < 200) return 'cyan';
  return degrees < 260 ? 'blue' : 'magenta';
}
