"""The typefaces behind `glyphs`: npm packages `@fontsource/<family>`, all under OFL-1.1 or Apache-2.0.

Train and held-out families are disjoint, so that a figure on held-out data speaks of unseen typefaces.
Families with small capitals for lower case, or so wide or cursive that 32 pixels cannot hold them, are not used.
"""

TRAIN_FAMILIES = [
    "inter",
    "open-sans",
    "ibm-plex-mono",
    "poppins",
    "montserrat",
    "jetbrains-mono",
    "roboto-mono",
    "merriweather",
    "raleway",
    "lora",
    "oswald",
    "cormorant-garamond",
    "work-sans",
    "kanit",
    "comfortaa",
    "inconsolata",
    "roboto-slab",
    "barlow-condensed",
    "fira-sans",
    "eb-garamond",
    "quicksand",
    "bodoni-moda",
    "titillium-web",
    "source-serif-4",
    "orbitron",
    "taviraj",
    "josefin-sans",
    "bitter",
    "spectral",
    "fraunces",
    "rajdhani",
    "dosis",
    "alegreya",
    "playfair-display",
    "fredoka",
    "grandstander",
    "chakra-petch",
    "zilla-slab",
    "teko",
    "piazzolla",
    "kalam",
    "cascadia-code",
]

HELD_OUT_FAMILIES = [
    "lato",
    "jost",
    "rubik",
    "exo-2",
    "ibm-plex-serif",
    "noto-serif",
    "crimson-pro",
    "source-code-pro",
    "dm-mono",
    "courier-prime",
    "comic-neue",
]

CLASSES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
