import { useEffect, useState } from "preact/hooks";

interface Drawing {
  readonly size: number;
  readonly path: string;
}

/** Draws a code. What draws is loaded when the first one is shown. */
async function draw(text: string): Promise<Drawing> {
  const [{ generate }, { toSvgPath }] = await Promise.all([import("lean-qr"), import("lean-qr/extras/svg")]);
  const code = generate(text);
  return { size: code.size + 8, path: toSvgPath(code) };
}

/** A QR code as a path: dark on white, with a margin of four modules, in both themes. */
export function QRCode({ text, label }: { text: string; label: string }) {
  const [drawing, setDrawing] = useState<Drawing>({ size: 49, path: "" });
  useEffect(() => void draw(text).then(setDrawing), [text]);
  const { size, path } = drawing;
  return (
    <svg class="qr" viewBox={`-4 -4 ${size} ${size}`} role="img" aria-label={label} shape-rendering="crispEdges">
      <rect x="-4" y="-4" width={size} height={size} fill="#fff" />
      <path d={path} fill="#000" />
    </svg>
  );
}
