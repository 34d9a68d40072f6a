// Charts as PNG, to be shown elsewhere: with title, period and legend, on white, twice as fine as a screen.
import { save } from './csv';

export const scale = 2;
const [margin, line] = [16 * scale, 20 * scale];
const ink = { text: '#16202b', soft: '#4b5563' };
export const face = 'system-ui, sans-serif';

export interface Sheet {
  title: string;
  period: string;
  legend: { name: string; color: string }[];
  /** Size of the content, in pixels of the picture. */
  width: number;
  height: number;
  paint: (c: CanvasRenderingContext2D) => void;
}

/** A horizontal bar, with a whisker if there is one: shares of the width at which they end. */
interface Bar { name: string; text: string; color: string; end: number; low?: number; high?: number }

/** Draws bars and lets the browser save them. */
export async function bars(sheet: Pick<Sheet, 'title' | 'period'>, of: Bar[]): Promise<void> {
  const row = 26 * scale;
  const width = 900 * scale;
  const put = (c: CanvasRenderingContext2D) => {
    c.font = `${13 * scale}px ${face}`;
    c.textBaseline = 'middle';
    const longest = (text: (b: Bar) => string) => Math.max(...of.map((b) => c.measureText(text(b)).width)) + 14 * scale;
    const left = longest((b) => b.name);
    const room = width - left - longest((b) => b.text);
    for (const [i, b] of of.entries()) {
      const y = (i + 0.5) * row;
      const x = (share: number) => left + Math.min(1, share) * room;
      c.fillStyle = b.color;
      c.fillRect(left, y - 8 * scale, x(b.end) - left, 16 * scale);
      c.fillStyle = ink.text;
      if (b.low != null && b.high != null) {
        for (const end of [b.low, b.high]) c.fillRect(x(end) - scale, y - 5 * scale, 2 * scale, 10 * scale);
        c.fillRect(x(b.low), y - scale / 2, x(b.high) - x(b.low), scale);
      }
      c.textAlign = 'left';
      c.fillText(b.name, 0, y);
      c.textAlign = 'right';
      c.fillText(b.text, width, y);
    }
  };
  await picture({ ...sheet, legend: [], width, height: of.length * row, paint: put });
}

/** Draws a sheet and lets the browser save it. */
export async function picture(s: Sheet): Promise<void> {
  const canvas = document.createElement('canvas');
  const c = canvas.getContext('2d');
  if (!c) return;
  const font = (size: number, weight = '') => `${weight} ${size * scale}px ${face}`;
  c.font = font(13);
  // Entries of the legend, broken into lines.
  const rows: { name: string; color: string; x: number }[][] = [[]];
  let x = 0;
  for (const entry of s.legend) {
    const width = c.measureText(entry.name).width + 36 * scale;
    if (x > 0 && x + width > s.width) {
      rows.push([]);
      x = 0;
    }
    rows.at(-1)?.push({ ...entry, x });
    x += width;
  }
  const head = 2 * line + 8 * scale;
  const foot = s.legend.length ? rows.length * line + 8 * scale : 0;
  canvas.width = s.width + 2 * margin;
  canvas.height = s.height + head + foot + 2 * margin;
  c.fillStyle = '#ffffff';
  c.fillRect(0, 0, canvas.width, canvas.height);
  c.translate(margin, margin);
  c.textBaseline = 'top';
  c.fillStyle = ink.text;
  c.font = font(16, 'bold');
  c.fillText(s.title, 0, 0);
  c.fillStyle = ink.soft;
  c.font = font(13);
  c.fillText(s.period, 0, line + 2 * scale);
  c.save();
  c.translate(0, head);
  s.paint(c);
  c.restore();
  c.font = font(13);
  c.textBaseline = 'top';
  for (const [i, row] of rows.entries()) {
    const y = head + s.height + 8 * scale + i * line;
    for (const { name, color, x: left } of row) {
      c.fillStyle = color;
      c.fillRect(left, y + 2 * scale, 11 * scale, 11 * scale);
      c.fillStyle = ink.text;
      c.fillText(name, left + 17 * scale, y);
    }
  }
  const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, 'image/png'));
  if (blob) save(s.title, blob);
}
