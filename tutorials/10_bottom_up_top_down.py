# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10 · Bottom-up, top-down: how a mask is made
#
# *About 35 minutes to read, less than a minute to run.*
#
# Here is the face of a cat. Suppose you want a network to pay attention to its *eyes*. For every single pixel it has to decide:
# does this one belong to an eye?
#
# The iris is easy, it is green. But the pupil is black, and so are the stripes on the forehead. A black pixel alone gives no
# clue. You have to step back, see the green ring around it, and then come back to exactly this pixel. Stepping back costs
# sharpness; coming back needs it. This notebook is about how a Residual Attention Network gets both: its mask branch first goes
# **bottom-up**, to small, coarse maps that see far, and then **top-down** again, to a mask as fine as the image.
#
# **What you will be able to do**
#
# * follow a picture through every step of the mask branch, and predict the size of every map;
# * say how much of the image a pixel of a coarse map sees, and confirm it with nothing but a gradient;
# * write bilinear resizing as two matrix products, $A X B^{\mathsf T}$, and derive its gradient;
# * explain why the paper uses $H = (1+M)\cdot F$ and not $M\cdot F$, and show it with numbers;
# * derive the gradient of a gate, write it as a rule, and verify it.
#
# **What you need**: [notebook 00](00_a_tour.ipynb), and an idea of what a convolution is. In the paper this is section 3, with
# the formula in section 3.1.

# %% tags=["setup"]
import numpy as np

import minires as mr
from minires import functional as F, nn
from minires.viz.lines import lines
from minires.viz.panels import panels

mr.manual_seed(0)
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. What goes in
#
# An attention module has two branches. The **trunk** computes features $F$; the **mask branch** computes, from the same input, a
# mask $M$ between 0 and 1, and in the end the two are combined. In a trained network both are learned, and both have dozens of
# channels. To see what is going on we begin with one channel and features made *by hand*, so that we know what they mean:
#
# * the trunk shall look for **edges**: how strongly the brightness changes from one pixel to the next;
# * the mask branch gets the **greenness** $\max(0,\; 2g - r - b)$.

# %%
from minires.data import photograph

photo = photograph().astype(np.float32) / 255  # (3, 96, 96), numbers in [0, 1]
red, green, blue = photo

rows, columns = np.gradient(photo.mean(axis=0))
trunk = np.hypot(rows, columns)  # (96, 96): strength of edges

greenness = np.maximum(0, 2 * green - red - blue)
greenness /= greenness.max()

panels({"photograph": photo, "trunk F: edges": trunk, "mask input X: greenness": greenness}, side=2.1)

# %% [markdown]
# The edges are everywhere: fur, whiskers, nose, eyes. The greenness is at the eyes, with a little dirt here and there. And
# look closely: **the pupils are missing**. They are not green. Keep an eye on those two holes.

# %% [markdown]
# ## 2. Bottom-up: pooling
#
# The way down consists of max-poolings: each takes the largest value in a window of 3×3 pixels, and windows lie 2 pixels apart.
# So the map becomes half as high and half as wide, and neighbouring windows overlap by one pixel. The last window may stick out
# over the edge (this is called *ceil mode*), so that no pixel is left out. Here are the windows on rows of 7, 8 and 9 pixels:

# %%
from minires.viz.windows import windows

windows((7, 8, 9), kernel=3, stride=2, ceil_mode=True)

# %% [markdown]
# Reading off the picture, $n$ pixels become
#
# $$n' = \left\lceil \frac{n - 3}{2} \right\rceil + 1 .$$
#
# **Guess before you run:** a photograph of 96 pixels, a canvas of 28, and an awkward image of 61: what are their sizes
# after one, two and three poolings?

# %%
for n in (96, 28, 61):
    x = np.zeros((1, 1, n, n), np.float32)
    sizes = [n]
    for _ in range(3):
        x = F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
        sizes.append(x.shape[-1])
    print(" → ".join(f"{size:2}" for size in sizes))

# %% [markdown]
# After each pooling comes a residual unit, which has a convolution of 3×3 in its middle: it lets each pixel confer with its
# neighbours; at the bottom there are two of them. Our stand-in for a learned unit is the simplest convolution there is, the mean
# of 3×3 pixels. With these, the whole way down is three lines. (The names $D_1$, $D_2$ for what the units make of the pooled maps
# will be needed again.)

# %%
mean_of_nine = np.full((1, 1, 3, 3), 1 / 9, np.float32)


def pool(x):
    return F.max_pool2d(x[None, None], 3, stride=2, ceil_mode=True)[0, 0]  # (H, W) → (⌈(H-3)/2⌉ + 1, ...)


def unit(x):
    return F.conv2d(x[None, None], mean_of_nine, padding=1)[0, 0]  # (H, W) → (H, W)


d1 = unit(pool(greenness))
d2 = unit(pool(d1))
bottom = unit(unit(pool(d2)))  # two units here

panels({"X": greenness, "D₁": d1, "D₂": d2, "bottom": bottom}, side=1.75)

# %% [markdown]
# Follow the pupils. In $D_1$ you can still see the hole in the left eye. In $D_2$ it is closed, and at the bottom, where the
# photograph has shrunk to 12×12 pixels, there is nothing left but the statement: *something green here, and something green
# there*. The detail is gone, and that is exactly the point: **the pupil now counts as part of the eye.** The specks of dirt, on the
# other hand, have faded: they had no green neighbours to speak for them.

# %% [markdown]
# ## 3. What each level sees
#
# How far did we step back? The *receptive field* of a pixel is the part of the original image that can influence it. It can be
# computed with a pencil. Let $r$ be its width and $j$ the distance, in the original image, between two neighbours on the present
# map. A layer with a kernel of $k$ pixels and stride $s$ adds $k - 1$ neighbours, each $j$ apart, and then spreads the pixels:
#
# $$r \leftarrow r + (k - 1)\,j, \qquad j \leftarrow s\,j .$$
#
# The second line is why pooling is so powerful: it doubles $j$, so that *every* later convolution reaches twice as far. We compare the way
# down that we have just built, which is that of the paper's first stage (three poolings, one unit after each, and a second one at
# the bottom), with three units at full size, which the paper tried instead.

# %%
POOL, UNIT = (3, 2), (3, 1)  # (kernel, stride)


def receptive_field(layers):
    r, j = 1, 1
    for kernel, stride in layers:
        r, j = r + (kernel - 1) * j, j * stride
    return r


way_down = {"D₁": [POOL, UNIT], "D₂": [POOL, UNIT] * 2, "bottom": [POOL, UNIT] * 3 + [UNIT]}
seen = {name: receptive_field(layers) for name, layers in way_down.items()}
print("with pooling:   ", seen)
print("without pooling:", receptive_field([UNIT] * 3))

# %% [markdown]
# Four convolutions with three poolings see 59 pixels; three convolutions without pooling see 7, not even one whole eye. Here is
# what a pixel in the left pupil sees at each level:

# %%
row, column = 37, 31  # in the pupil
fields = {name: (row - r // 2, column - r // 2, row + r // 2 + 1, column + r // 2 + 1) for name, r in seen.items()}
views = {f"{name} sees": photo[:, y0:y1, x0:x1] for name, (y0, x0, y1, x1) in fields.items()}
panels({"photograph": photo, **views}, boxes={"photograph": fields}, side=2.1)

# %% [markdown]
# $D_1$ sees little but black. $D_2$ sees the whole eye, the green all around. The bottom sees half a face.
#
# We need not believe the pencil. "Can influence" is what a derivative says! Take a real (untrained) mask branch, choose one pixel
# at its bottom, and compute the gradient of that pixel with respect to the input image. Where the gradient is not zero, the pixel
# sees. (Max-pooling passes a gradient only to the winner of each window, so we average over a few random images.)

# %%
branch = nn.SoftMask(8, depth=3).eval()
image = mr.randn(16, 8, 96, 96, requires_grad=True)  # (N, C, H, W)

h = branch.down1(branch.pool(image))
h = branch.down2(branch.pool(h))
h = branch.bottom(branch.pool(h))  # (16, 8, 12, 12)
(gradient,) = mr.grad((h[:, :, 5, 5] * mr.randn(16, 8)).sum(), image)

strength = np.abs(gradient.numpy()).mean(axis=(0, 1))  # (96, 96)
y, x = np.nonzero(strength)
print(f"rows {y.min()} to {y.max()}, columns {x.min()} to {x.max()}: {y.max() - y.min() + 1} × {x.max() - x.min() + 1} pixels")

field = {"59 × 59": (y.min(), x.min(), y.max() + 1, x.max() + 1)}
panels(
    {"mean |gradient|": strength, "its logarithm (base 10)": np.log10(strength + 1e-9)},
    boxes={"mean |gradient|": field, "its logarithm (base 10)": field},
    side=2.4,
)

# %% [markdown]
# Exactly 59 × 59. The picture tells more than the pencil did, though: most of the influence comes from the centre, and the rim of
# the box hardly counts. The receptive field is what a pixel *may* see; how much it *does* see falls off quickly towards the edge.
#
# (Why `.eval()`? In training mode, batch norm uses the mean of the whole map, so that every pixel depends on every other, if only
# a little. Remove it and run the cell again: the box fills the image.)

# %% [markdown]
# ## 4. Top-down: resizing
#
# Now the way back. To enlarge a row of $n$ pixels to $m$, we lay the $m$ new pixels evenly over the old ones, first on first and last on
# last (*align corners*), and mix the two old pixels between which a new one comes to lie. New pixel $i$ sits at
# $p_i = i\,\frac{n-1}{m-1}$, and the weight of old pixel $j$ falls off linearly with the distance:
#
# $$A_{ij} = \max\bigl(0,\; 1 - |p_i - j|\bigr).$$
#
# This is a matrix, with $m$ rows and $n$ columns. Multiplying an image $X$ by $A$ from the left makes it taller, and multiplying it by
# another such matrix $B^{\mathsf T}$ from the right makes it wider:
#
# $$Y = A\,X\,B^{\mathsf T}.$$

# %%
def bilinear_matrix(m, n):
    position = np.arange(m) * (n - 1) / (m - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(n)))  # (m, n)


X = np.array([[1.0, 2.0], [3.0, 4.0]])
A, B = bilinear_matrix(4, 2), bilinear_matrix(5, 2)
Y = A @ X @ B.T

panels({"A": A, "X": X, "Bᵀ": B.T, "Y": Y}, between=("·", "·", "="), numbers=True, to_scale=True, side=1.9)

# %% [markdown]
# The four corners of $Y$ are the four numbers of $X$, and everything between is a fair mixture. `F.interpolate` does the same:

# %%
same = F.interpolate(X[None, None], size=(4, 5), mode="bilinear", align_corners=True)[0, 0]
print("equal to F.interpolate:", np.allclose(Y, same))

# %% [markdown]
# **Its gradient.** Suppose we know $\mathrm dY$, how the loss changes with each pixel of $Y$. (We write $\mathrm dY$ for
# $\partial L/\partial Y$, as the code does.) If $X$ changes by a small $\Delta$, then $Y$ changes by $A\Delta B^{\mathsf T}$, and
# the loss by the sum over all pixels
#
# $$\langle \mathrm dY,\; A\,\Delta\,B^{\mathsf T}\rangle = \langle A^{\mathsf T}\,\mathrm dY\,B,\; \Delta\rangle ,$$
#
# because moving a matrix to the other side of a scalar product transposes it. What stands beside $\Delta$ is the gradient:
#
# $$\mathrm dX = A^{\mathsf T}\,\mathrm dY\,B .$$
#
# In words: on the way forward, an old pixel *lends* its value to new ones, with certain weights. On the way back it *collects* their
# gradients, with the same weights. Here a single pixel of a 7×7 map sends its gradient back to a 3×3 map:

# %%
x = mr.tensor(rng.normal(size=(1, 1, 3, 3)), requires_grad=True)
dY = np.zeros((7, 7))
dY[2, 4] = 1.0

F.interpolate(x, size=(7, 7), mode="bilinear", align_corners=True).backward(dY[None, None])
A = bilinear_matrix(7, 3)
print("backward() equals Aᵀ·dY·B:", np.allclose(x.grad.numpy()[0, 0], A.T @ dY @ A))

panels({"Aᵀ": A.T, "dY": dY, "B": A, "dX": A.T @ dY @ A}, between=("·", "·", "="), numbers=True, to_scale=True, side=2.4)

# %% [markdown]
# ## 5. Skip connections: the way up with handrails
#
# If we just enlarged the bottom by 8, we should get two blurred clouds. The network does it in steps, and at each step it is
# handed a note from the way down, which is *added*. The coarse map says *what* and roughly where, the note says where *exactly*.
#
# The note is called the *skip connection* $S_k$. It is made from the map $D_k$ of the same size: in the network by one more
# residual unit, which serves nothing else, so that it can learn what is worth passing on. In our hand-made version we leave that
# unit out, and $S_k$ is just $D_k$.
#
# Between the steps there is a unit again, and the resize takes its target size from the map that it will be added to, never
# "times 2". That is why the network accepts images of any size, the awkward 61 included.

# %%
def resize(x, size):
    return F.interpolate(x[None, None], size=size, mode="bilinear", align_corners=True)[0, 0]


cloud = resize(bottom, greenness.shape)  # all at once, for comparison

u2 = unit(resize(bottom, d2.shape) + d2)
u1 = unit(resize(u2, d1.shape) + d1)
h = resize(u1, greenness.shape)  # the last step: nothing is added here

panels({"bottom": bottom, "up, plus S₂ = D₂": u2, "up, plus S₁ = D₁": u1, "up: h": h, "without the skips": cloud}, side=1.6)

# %% [markdown]
# Compare the last two. Both know where the eyes are. With the skip connections, the bright spots are the size of eyes; without them
# they cover three times the area. (In $h$ you can still make out the left pupil, as a dent from above. We shall see in a moment
# whether that hurts.)
#
# To the last step nothing is added. Many programs on the internet do add something there; the authors' own network files do not, and
# neither does minires.

# %% [markdown]
# ## 6. The sigmoid: from a map to a mask
#
# So far $h$ is any number. In the real network two 1×1 convolutions turn it into scores $z$; they mix the channels and may scale and
# shift. We have one channel only, so scaling and shifting is all that is left of them. Then the sigmoid makes a mask of the scores:
#
# $$M = \sigma(z) = \frac{1}{1 + e^{-z}}, \qquad \mathrm dz = \mathrm dM \cdot M\,(1 - M).$$

# %%
z = np.linspace(-8, 8, 200)
gate = F.sigmoid(z)
lines({"a soft gate": {"M = σ(z)": (z, gate), "M·(1 − M)": (z, gate * (1 - gate))}}, xlabel="z", width=5.5)

# %% [markdown]
# Around $z = 0$ the gate is undecided and its derivative is largest: here it learns. Far out it is open or shut, and hardly any
# gradient passes: it has made up its mind.

# %%
z = 12 * (h / h.max() - 0.35)
mask = F.sigmoid(z)
pixel_mask = F.sigmoid(12 * (greenness - 0.35))  # the same, without going down and up

panels({"h": h, "z": z, "mask M": mask, "mask from pixels alone": pixel_mask},
       kind={"z": "signed", "mask M": "mask", "mask from pixels alone": "mask"}, side=1.8)  # fmt: skip

# %%
pupil = slice(35, 40), slice(29, 34)  # rows and columns well inside the left pupil
print(f"mask in the pupil:   bottom-up top-down {mask[pupil].mean():.2f}   from pixels alone {pixel_mask[pupil].mean():.2f}")

# %% [markdown]
# There it is. The mask on the right decided for each pixel by itself: it has holes where the pupils are, and ragged edges. The mask
# that went down and up again covers both eyes whole, the black pupils included, because at some level something saw the ring
# around them. The paper measured what this is worth: on CIFAR-10 its network makes 5.52 % errors with such masks, and 6.48 % if
# the mask branch stays at full size (Table 4).

# %% [markdown]
# ## 7. Attention: $H = (1 + M)\cdot F$
#
# Now trunk and mask meet. The obvious thing is to multiply, $M\cdot F$: keep what the mask likes, drop the rest. The paper calls this
# *naive* attention learning. What it does instead is *residual* attention learning:
#
# $$H = (1 + M)\cdot F .$$

# %%
naive = F.naive_attention(trunk, mask)
residual = F.residual_attention(trunk, mask)

panels({"F": trunk, "mask M": mask, "naive: M·F": naive, "residual: (1 + M)·F": residual},
       kind={"mask M": "mask"}, limits=(0, float(residual.max())), side=1.8)  # fmt: skip

# %% [markdown]
# (The three feature maps share one scale.) Naive attention has thrown the cat away; two eyes are left, and no layer after this one
# will ever see a nose again. Residual attention made the eyes twice as strong and left everything else in place. If the mask is
# wrong, and at the beginning of training every mask is, little harm is done.
#
# **The gradient.** Let $g$ be the gradient that arrives for $H$. The formula is a product, so we differentiate one factor at a time:
#
# $$\mathrm dF = g\cdot(1 + M), \qquad \mathrm dM = g\cdot F .$$
#
# Both are worth a second look.
#
# * $\mathrm dF$: the mask filters the gradient too. Where $M$ is large, the trunk learns with twice the step; where it is small, with the plain one.
#   If the label is wrong, say, a mask that is low where nothing belongs damps the damage (section 3 of the paper). And the factor is
#   never below 1, so no gradient is lost.
# * $\mathrm dM$: the mask is told to open where opening would lower the loss, and in proportion to the features there. Where there
#   are no features, the mask learns nothing.

# %%
f, m = rng.normal(size=(2, 3, 4, 5)), rng.uniform(size=(2, 3, 4, 5))  # (N, C, H, W), sizes all different
mr.gradcheck(F.residual_attention, (f, m))

# %% [markdown]
# And what if somebody writes the right formula, but takes the gradients from naive attention? The forward pass is residual, the rule has
# forgotten the 1. Nothing crashes, the shapes agree, a network would even learn, only worse. The checker has a name for it:

# %%
@mr.op
def half_hearted_attention(trunk: mr.Array, mask: mr.Array) -> mr.Array:
    return (1 + mask) * trunk


@half_hearted_attention.backward
def _(dy, trunk, mask):
    return dy * mask, dy * trunk  # the bug: the first should be dy * (1 + mask)


print(mr.gradcheck(half_hearted_attention, (f, m)))

# %% [markdown]
# `identity_branch_lost`: the features reach the output along two paths, $H = F + M\cdot F$, and the gradient of one of them is missing. It is just
# the path that gave residual attention its name.

# %% [markdown]
# ### A mask of zeros changes nothing
#
# Put $M = 0$: then $H = F$, and $\mathrm dF = g$. The module is then just its trunk, as if there were no mask branch at all, so it can always
# fall back to being an ordinary network. This holds for the real thing, to the last bit:

# %%
module = nn.AttentionModule(8, depth=2)
x = mr.randn(2, 8, 28, 28)

with nn.force_mask(module, 0.0):
    out = module(x)
plain = module.last(module.trunk(module.first(x)))
print("with M = 0 the module is first, trunk, last:", np.array_equal(out.numpy(), plain.numpy()))

# %% [markdown]
# ## 8. Why not simply $M\cdot F$? Stack some and see
#
# One module with naive attention might be all right. But the point of the paper is to *stack* many. Let us look at the gates first,
# and at nothing else: random masks $M = \sigma(z)$ with $z$ normal, so about ½ on average, are applied to the same features again and again.

# %%
depth = 10
f = np.abs(rng.normal(size=(64, 32, 32)))
gates = {"naive M·F": [], "residual (1 + M)·F": []}
a = b = f
for _ in range(depth + 1):
    gates["naive M·F"].append(a.mean() / f.mean())
    gates["residual (1 + M)·F"].append(b.mean() / f.mean())
    m = F.sigmoid(rng.normal(size=f.shape))
    a, b = m * a, (1 + m) * b

modules = np.arange(depth + 1)
sizes = {name: (modules, values) for name, values in gates.items()}
lines({"mean size of the features, gates alone": sizes}, xlabel="gates passed", log=True, markers=True, width=6)

# %% [markdown]
# Naive features halve at each gate: after ten, a thousandth is left. By the formulas above, the gradient on its way back meets
# the very same factors, so it shrinks just as much.
#
# Residual features *grow*, by one and a half at each gate. Is that not just as bad? No, and the reason is instructive. In the
# real network each unit begins with batch norm, which divides a common factor out again. Growing together is harmless. What batch
# norm cannot bring back is something that has drowned. So let us ask a better question than "how large?", in a network of real
# modules: after $k$ modules, **how much of the features we began with is still in there?** We measure it with the cosine of the angle
# between the two: 1 means the same features (up to a factor), 0 means no trace of them.

# %%
def trace_of_the_input(attention):
    mr.manual_seed(1)  # the same weights for all three
    x = h = mr.randn(8, 16, 14, 14)
    cosines = []
    with mr.no_grad():
        for _ in range(depth + 1):
            cosines.append(((x * h).sum() / (x.norm() * h.norm())).item())
            h = nn.AttentionModule(16, depth=2, attention=attention)(h)
    return cosines


kinds = {"naive M·F": "naive", "residual (1 + M)·F": "residual", "no mask": "none"}
traces = {name: (modules, trace_of_the_input(kind)) for name, kind in kinds.items()}
lines({"cosine between the features before and after": traces}, xlabel="attention modules passed", markers=True, width=6)

# %% [markdown]
# This is the whole argument in one picture. With naive attention, after five or six modules there is no trace of what came in: each
# module multiplies it by about ½ and then its units add something new at full strength. With residual attention the input survives
# all ten, even better than without a mask, because $(1 + M)$ lifts what came in over what is added.
#
# The network here is untrained. The paper looked at a trained one (Attention-164, Figure 4) and found the same: the features of the
# second and third stage are 0.52 and 0.30 times as large as those of the first with residual attention, and 0.02 and 0.01 times with
# naive attention. Its error on CIFAR-10 is 4.31 % with residual attention and 7.18 % with naive attention (Table 3).

# %% [markdown]
# ## 9. The real thing: a learned mask on a cluttered digit
#
# Up to here everything was made by hand. Now we let a network learn its own features, units and masks, from nothing but pictures of
# cluttered digits and their labels. It is the network of notebook 00, trained in the same way. Its first attention module works on
# maps of 14×14 pixels, and its mask branch goes down twice: 14 → 7 → 3 → 7 → 14.

# %%
from minires import models, optim
from minires.data import ClutteredDigits, DataLoader

mr.manual_seed(0)
net = models.small_attention(widths=(32, 64), depths=(2, 1), stem=16, after=0, t=1)
batches = DataLoader(ClutteredDigits(size=2000, clutter=2, fresh=True), batch_size=50, shuffle=True)
epochs = 6
optimizer = optim.AdamW(net.parameters(), lr=0.02, weight_decay=0.01)
schedule = optim.OneCycleLR(optimizer, max_lr=0.02, total_steps=epochs * len(batches), cycle_momentum=False)

for epoch in range(epochs):
    right = 0
    for images, labels in batches:
        optimizer.zero_grad()
        scores = net(images)
        F.cross_entropy(scores, labels).backward()
        optimizer.step()
        schedule.step()
        right += (scores.argmax(1) == labels).sum().item()
    print(f"epoch {epoch + 1}   {right / 2000:.1%} right")

# %% [markdown]
# We take the first of the test pictures, whichever it is. To look inside, we ask every part of the mask branch to report what it computes. In PyTorch as in minires that is a *forward hook*:
# a function that is called whenever the module has run.

# %%
test = ClutteredDigits(train=False, size=400, seed=1704, clutter=2, with_boxes=True)
image, label, box = test[0]

module = net.stage1[0]
reports = []
handles = [
    part.register_forward_hook(lambda part, args, out, name=name: reports.append((name, out)))
    for name, part in module.mask.named_children()
]
maps = net.masks(mr.tensor(image[None]))[0]
for handle in handles:
    handle.remove()

for name, out in reports:
    print(f"{name:8} {out.shape}")

# %% [markdown]
# You will recognise the way: down, down, bottom, up, up. The names of the parts are those of `nn.SoftMask`; `skip1` is the unit
# that makes $S_1$ of $D_1$ (section 5). Now the pictures. Each map has
# 32 channels; we draw the mean of their magnitudes, and the mean of the mask.

# %%
def mean(tensor):
    return np.abs(tensor.numpy()[0]).mean(axis=0)  # (1, C, H, W) → (H, W)


pooled = [out for name, out in reports if name == "pool"]
inside = dict(reports)
half = tuple(edge / 2 for edge in box)  # the box, in pixels of a map half as large
way = {
    "the image": image,
    "pool": mean(pooled[0]),
    "unit: D₁": mean(inside["down1"]),
    "pool ": mean(pooled[1]),
    "two units: bottom": mean(inside["bottom"]),
    "resize": mean(inside["resize1"]),
    "plus S₁": mean(inside["resize1"] + inside["skip1"]),
    "unit": mean(inside["up1"]),
    "resize ": mean(inside["resize0"]),
    "mask M": mean(maps.mask),
    "trunk F": mean(maps.trunk),
    "H = (1 + M)·F": mean(maps.attended),
}
frames = {"the image": box, "mask M": half, "trunk F": half, "H = (1 + M)·F": half}
panels(way, kind={"mask M": "mask"}, boxes=frames, columns=6)

# %% [markdown]
# The orange box is the digit's; the network never saw it. The steps are those of our cat. But the mask, drawn on its
# full scale from 0 to 1, is a dull grey nearly everywhere: the mean over channels hides the best. A learned mask is free to use its channels as it likes. So let us ask each of the 32: how much more open is it
# inside the digit's box than outside?
#
# One warning. If we picked the channel that looks best on *this* picture, it would look splendid and mean nothing: among 32, one always
# fits by chance. (Try it. It is how most pretty pictures of attention come about.) So we pick on 400 *training* pictures, and then look
# at the test pictures, once.

# %%
def openness(data):
    """How much more open each channel of the first mask is inside the box than outside: (N, 32)."""
    mask = net.masks(mr.tensor(data.images))[0].mask.numpy()  # (N, 32, 14, 14)
    centre = 2 * np.arange(14) + 1  # of each pixel of the mask, in pixels of the picture
    y0, x0, y1, x1 = data.boxes.T[:, :, None]  # (N, 1) each
    inside = ((y0 <= centre) & (centre < y1))[:, :, None] & ((x0 <= centre) & (centre < x1))[:, None, :]  # (N, 14, 14)
    inside = inside[:, None]  # (N, 1, 14, 14)
    return mask.mean(axis=(2, 3), where=inside) - mask.mean(axis=(2, 3), where=~inside)


order = np.argsort(openness(ClutteredDigits(size=400, seed=5, clutter=2)).mean(axis=0))
opens, shuts = order[-1], order[0]

result = openness(test)
for c in (opens, shuts):
    share = (result[:, c] > 0).mean()
    print(f"channel {c:2}: {result[:, c].mean():+.2f} on average; more open inside than outside on {share:.0%} of the test pictures")

# %% [markdown]
# Here are these two channels on the first five test pictures, whatever they look like:

# %%
images, labels, boxes = test.draw(range(5))
gates = net.masks(mr.tensor(images))[0].mask.numpy()  # (5, 32, 14, 14)

rows = {f"picture {k}": images[k] for k in range(5)}
rows |= {f"{k}: channel {opens}": gates[k, opens] for k in range(5)}
rows |= {f"{k}: channel {shuts}": gates[k, shuts] for k in range(5)}
frames = {title: boxes[i % 5] / (1 if i < 5 else 2) for i, title in enumerate(rows)}
panels(rows, kind=dict.fromkeys(list(rows)[5:], "mask"), boxes=frames, columns=5, side=1.4)

# %% [markdown]
# Now read the pictures carefully, before the numbers carry you away. The first channel opens wherever there is *ink*, on the digit and on
# the clutter alike, and keeps shut on the empty ground; the second does the opposite. Both are soft regions around the strokes, as
# those around the cat's eyes were. The box comes out well because there is more ink inside it than outside. So the first module
# tells something from nothing. To tell a whole digit from a fragment one must see all of it, and that is left to the second module,
# whose view is wider: in notebook 00 its strongest point was much more often in the box than that of the first.
#
# And both channels are useful. A gate that shuts where the object is, is as good as one that opens there: the layers that follow know what to
# make of each.
#
# So "the" mask is a manner of speaking: there is one for each channel of the trunk. When somebody shows you a picture of a mask, ask
# which channel it is, or whether it is a mean, and how it was chosen.

# %% [markdown]
# ## 10. Your turn: a gate with its sigmoid
#
# In a real program one does the last two steps of the module at once: from the trunk $F$ and the *scores* $z$ straight to
#
# $$H = \bigl(1 + \sigma(z)\bigr)\cdot F .$$
#
# The mask never has to be stored. **Derive the two gradients on paper, then write the rule and have it checked.**
#
# 1. $\mathrm dF$: which of the formulas above do you need?
# 2. $\mathrm dz$: there is one link more in the chain. First the gradient of the mask, then that of the sigmoid.
# 3. Fill in the rule. It returns both gradients, in the order of the inputs. Use `F.sigmoid` and ordinary operators.
# 4. Run the check. For each gradient that is wrong it names the kind of mistake; [the list](../docs/gradcheck.md#the-mistakes-it-knows) says what
#    the names mean. Without `hints="class"` it says a whole sentence.
#
# (In the published notebook the solution is filled in: cover it, or delete the lines between the two `###` marks, before you try.)
#
# <details><summary>A hint for step 2</summary>
#
# $\mathrm dM = g\cdot F$ from section 7, and $\mathrm dz = \mathrm dM\cdot M(1-M)$ from section 6. Put one into the other.
#
# </details>

# %% nbgrader={"grade": false, "grade_id": "soft-gate", "locked": false, "schema_version": 3, "solution": true, "task": false}
import minires as mr
from minires import functional as F


@mr.op
def soft_gate(trunk: mr.Array, scores: mr.Array) -> mr.Array:
    """H = (1 + σ(z))·F, element by element."""
    return (1 + F.sigmoid(scores)) * trunk


@soft_gate.backward
def _(dy, trunk, scores):
    """The gradients with respect to ``trunk`` and ``scores``, given the gradient ``dy`` with respect to H."""
    ### BEGIN SOLUTION
    mask = F.sigmoid(scores)
    return dy * (1 + mask), dy * trunk * mask * (1 - mask)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "soft-gate-check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import numpy as np

import minires as mr

draw = np.random.default_rng(11)
features, scores = draw.normal(size=(2, 3, 4, 5)), 2 * draw.normal(size=(2, 3, 4, 5))
expected = features * (1 + 1 / (1 + np.exp(-scores)))
assert np.allclose(soft_gate(features, scores), expected), "the forward computation was changed: it is (1 + σ(z))·F"
report = mr.gradcheck(soft_gate, (features, scores), hints="class")
print(report)
assert report, "not right yet: the report above says which of the two gradients is wrong, and names the mistake"
assert mr.gradcheck(soft_gate, (features, scores), order=2), "right, but not differentiable once more: use no np. in the rule"
print("Well done: both gradients are right.")

# %% [markdown]
# When it passes, have a look at how minires itself does it: `print(F.gated_residual.source)`.
#
# ## What you have seen
#
# * **Bottom-up**: max-pooling 3×3 with stride 2 halves the map and doubles the reach of all that follows; $n$ becomes $\lceil (n-3)/2\rceil + 1$.
# * The **receptive field** grows by $(k-1)\,j$ with each layer. A gradient shows it, and shows that the centre counts most.
# * **Top-down**: bilinear resizing is $Y = A X B^{\mathsf T}$, and its gradient $\mathrm dX = A^{\mathsf T}\,\mathrm dY\,B$ collects with the weights
#   with which it was lent. **Skip connections** bring back the sharpness.
# * The **sigmoid** makes a soft gate of scores, with the derivative $M(1-M)$.
# * **Residual attention** $H = (1+M)\cdot F$ has the gradients $\mathrm dF = g(1+M)$ and $\mathrm dM = gF$; with $M = 0$ it is the identity. Naive
#   attention $M\cdot F$ drowns the features when modules are stacked.
#
# **In the paper** ([arXiv:1704.06904](https://arxiv.org/abs/1704.06904)): section 3.1 attention residual learning, and Figure 4 how features fade
# without it; section 3.2 the soft mask branch, and Figure 3 its receptive field; Table 3 naive against residual; Table 4 the mask with and without
# going down and up. Bilinear upsampling as a learnable layer is from J. Long, E. Shelhamer and T. Darrell, *Fully Convolutional Networks
# for Semantic Segmentation*, CVPR 2015, [arXiv:1411.4038](https://arxiv.org/abs/1411.4038).
