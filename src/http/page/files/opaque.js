// Pictures with an alpha channel as the network gets them: the server leaves the channel out, so that what is clear has a colour.

/** The most pixels that this is done for: they are held several times. */
const MOST_PIXELS = 32e6;

/** Where the bytes of red, green and blue lie in a pixel of a video frame. */
const CHANNELS = { RGBA: [0, 1, 2], RGBX: [0, 1, 2], BGRA: [2, 1, 0], BGRX: [2, 1, 0] };

/** Whether what is drawn on `canvas` is clear somewhere. */
export function isClear(canvas) {
  // Of a copy: a canvas that is read is slow to draw on afterwards.
  const { width, height } = canvas;
  const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, width, height);
  for (let at = 3; at < data.length; at += 4) if (data[at] < 255) return true;
  return false;
}

/** A bitmap that was made without premultiplying its alpha, without the alpha. One that is too large is returned as it is. */
export async function opaque(bitmap) {
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) return bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  await copyColours(bitmap, pixels);
  for (let at = 3; at < pixels.data.length; at += 4) pixels.data[at] = 255;
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Copies the colours of `bitmap`, those of what is wholly clear among them, which a canvas has forgotten: there they are black. A video
 * frame has them, in browsers that have such frames. */
async function copyColours(bitmap, { width, height, data }) {
  let frame;
  try {
    frame = new VideoFrame(bitmap, { timestamp: 0 });
    const order = CHANNELS[frame.format];
    if (!order) return;
    const bytes = new Uint8Array(frame.allocationSize());
    const [{ offset, stride }] = await frame.copyTo(bytes);
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        const from = offset + y * stride + 4 * x;
        const to = 4 * (y * width + x);
        order.forEach((place, channel) => (data[to + channel] = bytes[from + place]));
      }
    }
  } catch {
    // What is partly clear has its colours all the same.
  } finally {
    frame?.close();
  }
}
