"""The models a host may offer, as data: one line a kind of card.

Columns: slug · nominal GiB (several where one PCI id was sold with several) · interface · PCI device ids, where public.
A slug has a line for each kind that is sold under it; the first line gives what is assumed when only the name is known.
Slugs are the ones Akash users write; a laptop part ends in `m`, a Super in `s`, Ada and Max-Q workstation parts in `ada`, `mq`.
"""

from typing import Final

CARDS: Final = """
gb300       268     sxm6   31c2
gb200       180,185 sxm6   2941
b300        268     sxm6   3182
b200        180     sxm6   2901
gh200       96      sxm5   2342
gh200       144,141 sxm5   2348
gb10        0       soc    2e12
h200        141     sxm5   2335
h200nvl     141     pcie   233b
h100        80      sxm5   2330
h100        80      pcie   2331
h100        64      sxm5   2337
h100        96      sxm5   2339
h100nvl     94      pcie   2321
h800        80      sxm5   2324
h800        80      pcie   2322
h20         96      sxm5   2329
h203e       141     sxm5   232c
a100        80      sxm4   20b2 147f
a100        40      sxm4   20b0
a100        40      pcie   20b1 20f1
a100        80      pcie   20b5
a100        64      sxm    20b3
a800        80      sxm4   20f3
a800        40      sxm4   20bd
a800        80      pcie   20f5
a40         48      pcie   2235
a30         24      pcie   20b7
a16         16      pcie
a10         24      pcie   2236
a10g        24      pcie   2237
a2          16      pcie
l40s        48      pcie   26b9
l40         48      pcie   26b5
l20         48      pcie   26ba
l4          24      pcie   27b8
l2          24      pcie   27b6
t4          16      pcie   1eb8
v100        16      sxm2   1db1
v100        32      sxm2   1db5
v100        32      sxm3   1db8
v100        32      pcie   1df0 1db6
v100        16      pcie   1db4
v100s       32      pcie   1df6
p100        16      pcie   15f8
p100        12      pcie   15f7
p100        16      sxm2   15f9
p40         24      pcie   1b38
p4          8       pcie   1bb3
m40         12,24   pcie   17fd
m60         8       pcie   13f2
k80         12      pcie   102d
pro6000se   96      pcie   2bb5
pro6000we   96      pcie   2bb1
pro6000mq   96      pcie   2bb4
pro5000     48,72   pcie   2bb3
pro4500     32      pcie   2c31
pro4000     24      pcie   2c34
rtx6000ada  48      pcie   26b1
rtx5000ada  32      pcie   26b2
rtx4500ada  24      pcie   27b1
rtx4000ada  20      pcie   27b2
rtx4000sada 20      pcie   27b0
rtx2000eada 16      pcie   28b0
rtx2000ada  16      pcie
rtxa6000    48      pcie   2230
rtxa5500    24      pcie   2233
a5000       24      pcie   2231
rtxa4500    20      pcie   2232
rtxa4000    16      pcie   24b0
rtxa2000    6,12    pcie   2531 2571
rtx8000     48      pcie   1e78
rtx6000     24      pcie   1e30
rtx5000     16      pcie   1eb5 1eb0
rtx4000     8       pcie   1eb1
p6000       24      pcie   1b30
p5000       16      pcie   1bb0
p4000       8       pcie   1bb1
p2000       5       pcie   1c30
p2000       4       pcie   1cba
m4000       8       pcie   13f1
titanrtx    24      pcie   1e02
titanv      12      pcie   1d81
titanxp     12      pcie   1b02
rtx5090     32      pcie   2b85
rtx5090d    32      pcie   2b87
rtx5090m    24      pcie   2c58 2c18
rtx5080     16      pcie   2c02
rtx5080m    16      pcie   2c59 2c19
rtx5070ti   16      pcie   2c05
rtx5070     12      pcie   2f04
rtx5060ti   8,16    pcie   2d04
rtx5060     8       pcie   2d05
rtx4090     24      pcie   2684 f297
rtx4090d    24,48   pcie   2685
rtx4090m    16      pcie   2717 2757
rtx4080s    16      pcie   2702
rtx4080     16      pcie   2704
rtx4080m    12      pcie   27a0 27e0
rtx4070tis  16      pcie   2705
rtx4070ti   12      pcie   2782
rtx4070s    12      pcie   2783
rtx4070     12      pcie   2786
rtx4070m    8       pcie   2820 2860
rtx4060ti   8,16    pcie   2803
rtx4060ti   16      pcie   2805
rtx4060     8       pcie   2882
rtx4060m    8       pcie   28a0 28e0
rtx3090ti   24      pcie   2203
rtx3090     24      pcie   2204
rtx3080ti   12      pcie   2208
rtx3080     10      pcie   2216 2206
rtx3080     12      pcie   220a
rtx3080m    8,16    pcie   249c 24dc
rtx3070ti   8       pcie   2482
rtx3070     8       pcie   2484 2488
rtx3070m    8       pcie   249d 24dd
rtx3060ti   8       pcie   2486 2489
rtx3060     12,8    pcie   2487 2503 2504
rtx3060m    6       pcie   2520 2560
rtx3050     8,6     pcie   2507
rtx2080ti   11      pcie   1e04 1e07
rtx2080s    8       pcie   1e81
rtx2080     8       pcie   1e87
rtx2070s    8       pcie   1e84
rtx2070     8       pcie   1f02
rtx2060s    8       pcie   1f06
rtx2060     6,12    pcie   1e89 1f08
gtx1660ti   6       pcie   2182
gtx1660s    6       pcie   21c4
gtx1660     6       pcie   2184
gtx1650s    4       pcie   2187
gtx1650ti   4       pcie   1f95
gtx1650     4       pcie   1f82
gtx1080ti   11      pcie   1b06
gtx1080     8       pcie   1b80
gtx1070ti   8       pcie   1b82
gtx1070     8       pcie   1b81
gtx1060     6       pcie   1c03 1c06
gtx1060     3       pcie   1c02
gtx1060     5       pcie   1c04
gtx1050ti   4       pcie   1c82
gtx1050     2       pcie   1c81
gtx1050     3       pcie   1c83
gtx980ti    6       pcie   17c8
gtx980      4       pcie   13c0
gtx970      4       pcie   13c2
gtx960      2       pcie   1401
gtx960      4       pcie   1406
gt1030      2       pcie   1d01
mx150       2       pcie   1d10
"""
"""GiB 0: memory shared with the processor, of any size."""
