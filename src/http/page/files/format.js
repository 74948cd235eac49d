// Numbers in the form that people read.

/** A number for an axis or beside it. */
export const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });

const scaled = (value, step, units) => {
  let unit = 0;
  while (Math.abs(value) >= step && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  return [number(value), units[unit]];
};

/** 4652008 as `4.65 M`. */
export const count = (value) => scaled(value, 1000, ["", " K", " M", " G", " T"]).join("");

/** Bytes as `1.5 MiB`. */
export const bytes = (value) => scaled(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]).join("");

/** Milliseconds as `63.7 ms`, or `4.44 s` of a second and more. */
export const milliseconds = (value) => (value < 999.5 ? `${number(value)}\u00a0ms` : `${number(value / 1000)}\u00a0s`);

/** A share of 1 as `97.4 %`. */
export const percent = (share) => `${(100 * share).toFixed(share >= 0.0995 ? 1 : 2)} %`;

/** `[3, 224, 224]` as `3 × 224 × 224`. */
export const shape = (sizes) => (sizes ? sizes.join(" × ") : "not known");
